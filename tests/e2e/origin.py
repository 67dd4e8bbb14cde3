"""An upstream of our own: serves what a fixture puts into it, and remembers every request.

Knows HTTP (GET, HEAD, POST, single ranges, conditional requests, keep-alive) and nothing of any ecosystem. It can be
stopped, so that its port refuses connections, and started again on the same port.
"""

import email.utils
import functools
import hashlib
import random
import socket
import threading
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# 2024-01-02 03:04:05 UTC: old enough for every client's "too fresh to trust" rule.
LAST_MODIFIED = 1704164645

# Below the range that the kernel gives to outgoing connections, so that nobody takes a port between the choice and the
# bind, or while an origin is stopped.
_PORTS = range(20000, 30000)
_given = set()
_given_lock = threading.Lock()


def free_port():
    """A loopback port that is free, and that this process has given to nobody else."""
    with _given_lock:
        while True:
            port = random.choice(_PORTS)
            if port in _given:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _given.add(port)
            return port


@dataclass
class Resource:
    """What a path answers with. `immutable` says how the test counts requests for it."""

    body: bytes = b""
    content_type: str = "application/octet-stream"
    immutable: bool = False
    status: int = 200
    headers: dict = field(default_factory=dict)

    @functools.cached_property
    def etag(self):
        return '"' + hashlib.sha256(self.body).hexdigest()[:24] + '"'


@dataclass
class Request:
    """One request as it arrived. `path` is decoded and has no query; `target` is the raw request target."""

    method: str
    target: str
    path: str
    headers: object
    body: bytes
    status: int = 0
    immutable: bool = False

    def __str__(self):
        marks = [f"range {self.headers['Range']}"] if self.headers.get("Range") else []
        return " ".join([self.method, self.target, f"-> {self.status}", *marks])


class Origin:
    """A server on a loopback port of its own. Use as a context manager."""

    def __init__(self, name):
        self.name = name
        self._resources = {}
        self._lock = threading.Lock()
        self._log = []
        self._server = None
        # What it is called by whoever has it as a proxy (it answers requests for any host as its own); otherwise its address.
        self.named = None
        # The system chooses the port while it binds it: nobody else can come in between.
        self.port = 0
        self.start()

    @property
    def url(self):
        return self.named or self.address

    @property
    def address(self):
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def host(self):
        return f"127.0.0.1:{self.port}"

    def put(self, path, body, content_type="application/octet-stream", *, immutable=False, **headers):
        """Serves `body` (bytes or str) at `path` (decoded, with a leading slash)."""
        body = body.encode() if isinstance(body, str) else body
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._resources[path] = Resource(body, content_type, immutable, headers=named)

    def answer(self, path, function):
        """Serves `path` with what `function` (of a Request) gives: a Resource."""
        self._resources[path] = function

    def replace(self, prefix, files):
        """Serves `files` (path to bytes and whether they never change) in place of all below `prefix`, at one instant."""
        kept = {path: resource for path, resource in self._resources.items() if not path.startswith(prefix)}
        new = {path: Resource(body, immutable=immutable) for path, (body, immutable) in files.items()}
        self._resources = {**kept, **new}

    def mirror(self, other):
        """Serves all that `other` serves now."""
        self._resources.update(other._resources)

    def redirect(self, path, location):
        self._resources[path] = Resource(status=302, headers={"Location": location})

    def respond(self, request):
        found = self._resources.get(request.path)
        resource = found(request) if callable(found) else found
        return resource or Resource(b"not here\n", "text/plain", status=404)

    def record(self, request):
        with self._lock:
            self._log.append(request)

    def mark(self):
        """A point in the log, for `requests(since=…)`."""
        with self._lock:
            return len(self._log)

    def requests(self, since=0):
        with self._lock:
            return list(self._log[since:])

    def start(self):
        """Listens, on the same port as before if it was stopped."""
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        """Refuses connections from now on, and cuts those that are open."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut_connections()
            self._server = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address, origin):
        self.origin = origin
        self._open = set()
        self._open_lock = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self):
        connection, address = super().get_request()
        with self._open_lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request):
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def cut_connections(self):
        with self._open_lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def handle_error(self, request, client_address):
        """A peer that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "origin"
    sys_version = ""
    # Without these, headers and body leave in two packets and wait for each other's acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self):
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # A client that takes it for a proxy names the host as well (RFC 9112 section 3.2.2).
        target = "/" + self.path.split("/", 3)[3] if self.path.startswith("http://") else self.path
        path = urllib.parse.unquote(target.partition("?")[0])
        request = Request(self.command, self.path, path, self.headers, body)
        resource = self.server.origin.respond(request)
        request.immutable = resource.immutable
        status, payload, extra = _settle(request, resource)
        request.status = status
        # Recorded before the answer leaves: whoever saw the answer finds the request in the log.
        self.server.origin.record(request)
        self.send_response(status)
        for name, value in {**resource.headers, **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)
        self.wfile.flush()

    def log_message(self, *_):
        """The request log is `Origin.requests`."""


def _settle(request, resource):
    """Status, body and headers of the answer (RFC 9110 sections 13 and 14)."""
    body = resource.body
    headers = {"Content-Type": resource.content_type, "Content-Length": str(len(body))}
    if resource.status != 200:
        return resource.status, body, headers
    headers["ETag"] = resource.etag
    headers["Last-Modified"] = resource.headers.get("Last-Modified") or email.utils.formatdate(LAST_MODIFIED, usegmt=True)
    headers["Accept-Ranges"] = "bytes"
    if _not_modified(request.headers, headers):
        del headers["Content-Length"], headers["Content-Type"]
        return 304, b"", headers
    span = _single_range(request.headers.get("Range"), len(body))
    if span is None or request.headers.get("If-Range") not in (None, headers["ETag"]):
        return 200, body, headers
    first, last = span
    headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
    headers["Content-Length"] = str(last - first + 1)
    return 206, body[first : last + 1], headers


def _not_modified(asked, has):
    if asked.get("If-None-Match"):
        return has["ETag"] in asked["If-None-Match"]
    return asked.get("If-Modified-Since") == has["Last-Modified"]


def _single_range(value, size):
    """(first, last) of the one range in `value`; None for none, several, or one that cannot be met."""
    if not value or not value.startswith("bytes=") or "," in value:
        return None
    first, _, last = value[len("bytes=") :].partition("-")
    if not first:
        return (max(size - int(last), 0), size - 1) if int(last) else None
    span = (int(first), min(int(last), size - 1) if last else size - 1)
    return span if span[0] <= span[1] else None
