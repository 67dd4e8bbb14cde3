"""The balancer of packaging/compose: its nginx.conf in front of two real larders that share PostgreSQL, Redis and an S3 store.

The containers themselves are not run: what is tested is the file that the balancer reads, with other addresses in it.
"""

import hashlib
import http.client
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

from backends import Backends
from harness import ROOT, Failed, Larder, ask, expect, expect_equal, last_lines, tool
from origin import free_port

CONFIGURATION = ROOT / "packaging" / "compose" / "nginx.conf"
MIB = 1 << 20
PIECE = random.Random(7).randbytes(MIB)


class Balancer:
    """nginx with the stack's file, of which only the addresses are changed. Use as a context manager."""

    def __init__(self, directory, replicas, changes=()):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        text = CONFIGURATION.read_text()
        changes = {"listen 8000;": f"listen 127.0.0.1:{self.port};", **dict(changes)}
        for number, replica in enumerate(replicas, start=1):
            changes[f"server larder-{number}:8000"] = f"server 127.0.0.1:{replica.port}"
        for old, new in changes.items():
            expect_equal(f"{old!r} in {CONFIGURATION.name}", text.count(old), 1)
            text = text.replace(old, new)
        (directory / "nginx.conf").write_text(text)

    def __enter__(self):
        # What the image's own defaults say of files; nothing of how requests go through.
        globally = f"daemon off; pid {self._directory}/pid; error_log {self._directory}/error.log;"
        if os.geteuid() == 0:
            globally += " user root;"
        command = [tool("nginx"), "-p", self._directory, "-c", self._directory / "nginx.conf", "-g", globally]
        self._process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                ask(f"{self.url}/live")
                return self
            except (OSError, Failed):
                time.sleep(0.05)
        raise Failed(f"nginx did not start\n{self.log()}")

    def __exit__(self, kind, failure, _):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=10)
        if kind is Failed:
            raise Failed(f"{failure}\n--- nginx's log ---\n{self.log()}") from None

    def log(self):
        log = self._directory / "error.log"
        return last_lines(log.read_text(errors="replace")) if log.exists() else ""

    def temporary_bytes(self):
        """What nginx has put aside of bodies, now. Its files have lost their names: only its descriptors show them."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        found = 0
        for process in (self._process.pid, *children):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                try:
                    if os.readlink(descriptor).endswith(" (deleted)"):
                        found += descriptor.stat().st_size
                except OSError:
                    # It has been closed meanwhile.
                    continue
        return found


def upload(url, length, every_mib=None):
    """Sends a body piece by piece, and gives the status and the body's digest."""
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=600)
    connection.putrequest("PUT", f"/{path}")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    digest = hashlib.sha256()
    for number in range(length // MIB):
        piece = number.to_bytes(8, "big") + PIECE[8:]
        digest.update(piece)
        connection.send(piece)
        if every_mib:
            every_mib(number + 1)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, digest.hexdigest()


def digest_of(url):
    host, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=600)
    connection.request("GET", f"/{path}")
    answer = connection.getresponse()
    expect_equal(f"GET {url}", answer.status, 200)
    digest, length = hashlib.sha256(), 0
    while piece := answer.read(MIB):
        digest.update(piece)
        length += len(piece)
    connection.close()
    return digest.hexdigest(), length


class Load:
    """Clients that read and upload through the balancer for as long as they are let, each with a connection of its own."""

    def __init__(self, url, readers=4, writers=2):
        self.url = url
        self.failures = []
        self.done = {"GET": 0, "PUT": 0}
        self._over = threading.Event()
        self._lock = threading.Lock()
        kinds = ["GET"] * readers + ["PUT"] * writers
        self._threads = [threading.Thread(target=self._run, args=(kind, n)) for n, kind in enumerate(kinds)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=60)

    def _run(self, kind, number):
        host, count = self.url.removeprefix("http://"), 0
        while not self._over.is_set():
            count += 1
            connection = http.client.HTTPConnection(host, timeout=30)
            try:
                if kind == "GET":
                    path, body, wanted = "/api/v1/remote/files/held.bin", None, (200,)
                else:
                    path, body, wanted = f"/api/v1/remote/own/load/{number}-{count}", b"x" * 10_000, (201,)
                connection.request(kind, path, body=body)
                answer = connection.getresponse()
                said = answer.read(500)
                problem = None if answer.status in wanted else f"{kind} {path}: {answer.status} {said}"
            except (OSError, http.client.HTTPException) as error:
                problem = f"{kind}: {error!r}"
            finally:
                connection.close()
            with self._lock:
                self.done[kind] += 1
                if problem:
                    self.failures.append(problem)
            time.sleep(0.01)


def stack(length):
    def case_of(case):
        case.needs_larder()
        with Backends() as backends:
            compose(case, backends, case.origin(), length)

    return case_of


def compose(case, backends, origin, length):
    origin.put("/held.bin", PIECE[:100_000], "application/octet-stream", immutable=True)
    environment, more = backends.for_a_case()
    remotes = {
        "files": {"package": "generic", "base_url": origin.url, "immutable_patterns": [".*"]},
        "own": {"package": "generic", "type": "local"},
    }
    replicas = []
    for number in (1, 2):
        directory = case.directory / f"replica-{number}"
        directory.mkdir()
        own = dict(environment, LARDER_CLUSTER_SECRET="between the replicas")
        # As packaging/compose/larder.yaml: the balancer is believed what it says of the client.
        settings = {**more, "trusted_proxies": ["127.0.0.0/8"], "drain": 3}
        replica = Larder(case.binary, directory, remotes, settings, own)
        own["LARDER_ADVERTISE"] = f"127.0.0.1:{replica.port}"
        replicas.append(replica)
    def directory(name):
        made = case.directory / name
        made.mkdir()
        return made

    try:
        for replica in replicas:
            replica.start()
        with Balancer(directory("balancer"), replicas) as balancer:
            unbuffered(balancer, replicas, length)
            replaced(balancer, replicas)
        # Would the test see what is put aside?
        buffering = {"proxy_request_buffering off;": "proxy_request_buffering on;"}
        replicas[0].stop()
        replicas[0].start()
        with Balancer(directory("buffering"), replicas, buffering) as balancer:
            seen = []
            upload(f"{balancer.url}/api/v1/remote/own/control.bin", 8 * MIB, lambda _: seen.append(balancer.temporary_bytes()))
            expect(max(seen) > MIB, "what nginx puts aside is not seen, so the test shows nothing")
    finally:
        for replica in replicas:
            replica.stop()


def unbuffered(balancer, replicas, length):
    """A large body goes through in both directions while it arrives, and nginx puts nothing aside."""
    url, most = f"{balancer.url}/api/v1/remote/own/large.bin", 0

    def watch(sent):
        nonlocal most
        if sent % 16 == 0:
            most = max(most, balancer.temporary_bytes())

    begun = time.monotonic()
    status, sent = upload(url, length, watch)
    took = time.monotonic() - begun
    expect_equal(f"upload of {length // MIB} MiB through the balancer", status, 201)
    expect_equal("bytes that nginx put aside", most, 0)
    for base in (balancer.url, *(replica.url for replica in replicas)):
        got, there = digest_of(f"{base}/api/v1/remote/own/large.bin")
        expect_equal(f"length by {base}", there, length)
        expect_equal(f"digest by {base}", got, sent)
    expect_equal("bytes that nginx put aside of answers", balancer.temporary_bytes(), 0)
    print(f"    {length // MIB} MiB up in {took:.1f} s, nothing put aside", flush=True)


def replaced(balancer, replicas):
    """Each replica is stopped and started again under load, and one is killed: clients see nothing of it."""
    ask(f"{balancer.url}/api/v1/remote/files/held.bin")
    with Load(balancer.url) as load:
        for replica in replicas:
            wrong = []
            stopping = threading.Thread(target=lambda replica=replica, wrong=wrong: wrong.append(replica.stop()))
            stopping.start()
            # It says that it stops while it still answers; through the balancer another one says that all is well.
            said = until_stopping(replica.url)
            expect(said, "a replica that stops did not say so on /ready")
            ask(f"{balancer.url}/ready")
            stopping.join()
            expect_equal("what was wrong with the way it ended", wrong, [None])
            time.sleep(1)
            replica.start()
            time.sleep(1)
    done = dict(load.done)
    expect(min(done.values()) > 50, f"hardly any load: {done}")
    expect(not load.failures, f"{len(load.failures)} of {done} failed:\n" + "\n".join(load.failures[:10]))
    with Load(balancer.url, writers=0) as load:
        time.sleep(1)
        os.kill(replicas[0].pid, signal.SIGKILL)
        time.sleep(2)
    expect(not load.failures, f"reads failed as a replica was killed: {load.failures[:10]}")
    print(f"    {done} while each replica was replaced, none failed", flush=True)


def until_stopping(url):
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        try:
            if b"stopping" in ask(f"{url}/ready", wanted=503).body:
                return True
        except (OSError, Failed):
            time.sleep(0.02)
    return False


CASES = {"compose": stack(64 * MIB)}
HEAVY = {"compose-1gib": stack(1024 * MIB)}
