"""Clients that cost next to nothing themselves: one request over a socket, many at once, and wrk.

Bodies are discarded inside the kernel (`MSG_TRUNC`) unless their digest is wanted.
"""

import hashlib
import re
import select
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field

TIMEOUT = 60
BUFFER = 1 << 20


@dataclass
class Fetched:
    """What became of one request; times are seconds since it was begun."""

    status: int = 0
    headers: dict = field(default_factory=dict)
    length: int = 0
    first_byte: float = None
    total: float = 0.0
    complete: bool = False
    sha256: str = None
    error: str = ""

    def is_good(self, sha256=None):
        return self.status == 200 and self.complete and (sha256 is None or self.sha256 == sha256)


def request_head(port, path, headers, close=True):
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, *(["Connection: close"] if close else []), "", ""]).encode()


def parse_head(head):
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return int(lines[0].split()[1]), headers


class Connection:
    """One keep-alive connection."""

    def __init__(self, port):
        self._port = port
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(BUFFER)

    def close(self):
        self._socket.close()

    def get(self, path, headers=None, digest=False, leave_after=None, keep=True, begun=None):
        """One request. `leave_after`: read no more than that many bytes of the body. `begun`: from when times count."""
        result = Fetched()
        begun = begun or time.monotonic()
        try:
            self._socket.sendall(request_head(self._port, path, headers or {}, close=not keep))
            self._receive(result, begun, hashlib.sha256() if digest else None, leave_after)
        except (OSError, EOFError, ValueError) as error:
            result.error = f"{type(error).__name__}: {error}"
        result.total = time.monotonic() - begun
        return result

    def _receive(self, result, begun, hasher, leave_after):
        head = b""
        while b"\r\n\r\n" not in head:
            part = self._socket.recv(65536)
            if not part:
                raise EOFError("closed before the head was complete")
            head += part
        head, _, rest = head.partition(b"\r\n\r\n")
        result.status, result.headers = parse_head(head)
        if rest:
            result.first_byte = time.monotonic() - begun
        if "chunked" in result.headers.get("transfer-encoding", ""):
            self._receive_chunked(result, begun, hasher, rest)
        else:
            wanted = int(result.headers.get("content-length", 0))
            result.length = len(rest)
            if hasher:
                hasher.update(rest)
            self._receive_counted(result, begun, hasher, min(wanted, leave_after or wanted))
            result.complete = result.length == wanted
        result.sha256 = hasher.hexdigest() if hasher else None
        if not result.complete and not leave_after:
            result.error = f"broke off after {result.length} bytes"

    def _receive_counted(self, result, begun, hasher, wanted):
        flags = 0 if hasher else socket.MSG_TRUNC
        while result.length < wanted:
            count = self._socket.recv_into(self._buffer, min(BUFFER, wanted - result.length), flags)
            if count == 0:
                return
            if result.first_byte is None:
                result.first_byte = time.monotonic() - begun
            if hasher:
                hasher.update(memoryview(self._buffer)[:count])
            result.length += count

    def _receive_chunked(self, result, begun, hasher, rest):
        pending = bytearray(rest)

        def wait_for(is_there):
            while not is_there():
                part = self._socket.recv(BUFFER)
                if not part:
                    raise EOFError("a chunked body broke off")
                if result.first_byte is None:
                    result.first_byte = time.monotonic() - begun
                pending.extend(part)

        while True:
            wait_for(lambda: b"\r\n" in pending)
            line, _, _ = bytes(pending).partition(b"\r\n")
            del pending[: len(line) + 2]
            size = int(line.split(b";")[0], 16)
            # The chunk and the line end after it.
            wait_for(lambda wanted=size + 2: len(pending) >= wanted)
            if hasher:
                hasher.update(pending[:size])
            del pending[: size + 2]
            result.length += size
            if size == 0:
                result.complete = True
                return


def fetch(port, path, headers=None, digest=False, leave_after=None):
    """One request on a connection of its own; its times begin before the connection is made."""
    begun = time.monotonic()
    try:
        connection = Connection(port)
    except OSError as error:
        return Fetched(error=f"{type(error).__name__}: {error}", total=time.monotonic() - begun)
    try:
        return connection.get(path, headers, digest, leave_after, keep=False, begun=begun)
    finally:
        connection.close()


def herd(port, path, count, digest=False):
    """The same request on `count` connections at the same moment; gives what became of each.

    One thread with epoll: the times are those of the server, not of a crowd of client threads. Times count from the
    moment of the first request.
    """
    sockets = [socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) for _ in range(count)]
    members = {each.fileno(): Member(each, digest) for each in sockets}
    poll = select.epoll()
    buffer = bytearray(BUFFER)
    request = request_head(port, path, {})
    begun = time.monotonic()
    try:
        for descriptor, member in members.items():
            member.socket.sendall(request)
            member.socket.setblocking(False)
            poll.register(descriptor, select.EPOLLIN)
        open_ones = count
        while open_ones and time.monotonic() - begun < TIMEOUT:
            for descriptor, _ in poll.poll(1):
                if members[descriptor].read(buffer, begun):
                    poll.unregister(descriptor)
                    open_ones -= 1
    finally:
        poll.close()
        for each in sockets:
            each.close()
    return [member.finish(begun) for member in members.values()]


class Member:
    """One of a herd."""

    def __init__(self, connection, digest):
        self.socket = connection
        self.result = Fetched()
        self._head = b""
        self._wanted = None
        self._hasher = hashlib.sha256() if digest else None

    def read(self, buffer, begun):
        """Reads what is there; whether the answer has ended."""
        try:
            if self._wanted is None:
                return self._read_head(begun)
            flags = 0 if self._hasher else socket.MSG_TRUNC
            count = self.socket.recv_into(buffer, BUFFER, flags)
        except BlockingIOError:
            return False
        except OSError as error:
            self.result.error = f"{type(error).__name__}: {error}"
            return self._end(begun)
        if count and self._hasher:
            self._hasher.update(memoryview(buffer)[:count])
        return self._took(count, begun)

    def _read_head(self, begun):
        part = self.socket.recv(65536)
        self._head += part
        head, found, rest = self._head.partition(b"\r\n\r\n")
        if not part:
            self.result.error = "closed before the head was complete"
            return self._end(begun)
        if not found:
            return False
        self.result.status, self.result.headers = parse_head(head)
        self._wanted = int(self.result.headers.get("content-length", 1 << 62))
        if self._hasher:
            self._hasher.update(rest)
        return self._took(len(rest), begun) if rest or not self._wanted else False

    def _took(self, count, begun):
        if count and self.result.first_byte is None:
            self.result.first_byte = time.monotonic() - begun
        self.result.length += count
        self.result.complete = self.result.length == self._wanted
        return self._end(begun) if self.result.complete or count == 0 else False

    def _end(self, begun):
        self.result.total = time.monotonic() - begun
        return True

    def finish(self, begun):
        if not self.result.total:
            self.result.total = time.monotonic() - begun
            self.result.error = f"still running after {TIMEOUT} s"
        self.result.sha256 = self._hasher.hexdigest() if self._hasher else None
        return self.result


UNITS = {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}


def wrk(server, path, connections, seconds, headers=None):
    """Load by wrk with one thread. Gives requests per second, latencies and server CPU per request in microseconds."""
    options = [part for name, value in (headers or {}).items() for part in ("-H", f"{name}: {value}")]
    command = [
        shutil.which("wrk") or "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "--timeout",
        "30s",
    ]
    before = server.cpu()
    ran = subprocess.run(
        [*command, *options, f"http://127.0.0.1:{server.port}{path}"],
        capture_output=True,
        text=True,
        timeout=seconds + 90,
        check=True,
    )
    used = server.cpu() - before
    requests = int(re.search(r"(\d+) requests in", ran.stdout)[1])
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", ran.stdout)
    errors = re.search(r"Socket errors: (.*)", ran.stdout)
    return {
        "requests": requests,
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", ran.stdout)[1]),
        "p50": percentile(ran.stdout, 50),
        "p99": percentile(ran.stdout, 99),
        "cpu_us": used / max(requests, 1) * 1e6,
        "failed": int(refused[1]) if refused else 0,
        "errors": errors[1] if errors else "",
    }


def percentile(text, percent):
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", text, re.M)
    return float(found[1]) * UNITS[found[2]] if found else float("nan")
