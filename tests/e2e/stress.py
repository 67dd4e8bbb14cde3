"""Long and heavy cases, for `make stress`."""

import hashlib
import subprocess
import sys
import threading
import time

import oci
from archives import noise
from harness import expect, expect_equal

GIBIBYTE = 1 << 30
READERS = 64
MEMORY = 64 << 20

# Waits for a line, then reads one URL to its end and prints the digest of what came: a process of its own, because 64
# threads of one Python would read one after the other.
READER = """
import hashlib, http.client, sys
host, path = sys.argv[1:]
sys.stdin.readline()
connection = http.client.HTTPConnection(host, timeout=300)
connection.request("GET", path)
answer = connection.getresponse()
digest, buffer = hashlib.sha256(), bytearray(1 << 20)
while count := answer.readinto(buffer):
    digest.update(memoryview(buffer)[:count])
print(answer.status, digest.hexdigest())
"""


def one_gibibyte(case):
    """64 clients at once for one cold file of 1 GiB: one download, every body right, bounded memory."""
    case.needs_larder()
    body = b"".join(noise(GIBIBYTE // 8, f"part {part}") for part in range(8))
    digest = hashlib.sha256(body).hexdigest()
    origin = case.origin()
    origin.put("/big.bin", body, immutable=True)
    case.serve({"files": {"base_url": origin.url, "type": "remote", "package": "generic"}})
    host, _, path = case.repository("files").removeprefix("http://").partition("/")
    command = [sys.executable, "-c", READER, host, f"/{path}/big.bin"]
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(READERS)
    ]
    with Peak(case.larder_pid) as peak:
        for reader in readers:
            reader.stdin.write("go\n")
            reader.stdin.flush()
        printed = [reader.communicate(timeout=1200)[0].strip() for reader in readers]
    expect_equal("what the readers got", set(printed), {f"200 {digest}"})
    expect_equal("requests at the upstream", [str(request) for request in origin.requests()], ["GET /big.bin -> 200"])
    expect(peak.growth <= MEMORY, f"larder's anonymous memory grew by {peak.growth >> 20} MiB")


class Peak:
    """How far a process's anonymous memory grows while the block runs."""

    def __init__(self, pid):
        self._status = f"/proc/{pid}/status"
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._before = self._highest = self._anonymous()

    @property
    def growth(self):
        return self._highest - self._before

    def _anonymous(self):
        with open(self._status) as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))

    def _watch(self):
        while not self._done.is_set():
            self._highest = max(self._highest, self._anonymous())
            time.sleep(0.05)

    def __enter__(self):
        self._watcher.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._watcher.join()


def layer_of_two_gibibytes(case):
    """An image with a layer of 2 GiB, cold and warm: its digest is right and larder's memory bounded."""
    registry = oci.serve(case)
    case.needs_larder()
    registry.add("app/huge", b"".join(noise(GIBIBYTE // 8, f"part {part}") for part in range(16)))
    base = oci.prefix(case, registry)
    for phase in ("cold", "warm"):
        do = oci.Containers(case.home(), insecure=[base.partition("/")[0]])
        mark = registry.origin.mark()
        with Peak(case.larder_pid) as peak:
            oci.copied(do, registry, base, "app/huge", ":1.0", seconds=900)
        expect(peak.growth <= MEMORY, f"larder's anonymous memory grew by {peak.growth >> 20} MiB ({phase})")
        layers = [request for request in registry.origin.requests(mark) if "/blobs/sha256:" in request.path]
        expect_equal(f"blobs asked of the upstream ({phase})", len(layers), 2 if phase == "cold" else 0)


CASES = {"stress-one-gibibyte": one_gibibyte, "stress-layer-of-two-gibibytes": layer_of_two_gibibytes}
