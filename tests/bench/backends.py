"""Hits of a larder over PostgreSQL, Redis and S3 beside one over SQLite and a folder, and nginx, in turns."""

import contextlib
import json
import os
import subprocess
import sys
import time

from client import fetch
from hits import load, of, warm
from servers import HERE, Failed, Larder

SERVERS = HERE.parent / "e2e" / "backends.py"
START_SECONDS = 90


class Replica(Larder):
    """The same program over the three backends."""

    name = "replica"

    def __init__(self, directory, binary, origin, environment, **settings):
        super().__init__(directory, binary, origin, **settings)
        self._environment = environment

    def environment(self):
        return {**super().environment(), **self._environment}

    def start(self):
        """It listens before its backends have answered."""
        super().start()
        deadline = time.monotonic() + START_SECONDS
        while fetch(self.port, "/ready").status != 200:
            if time.monotonic() > deadline:
                raise Failed(f"the replica is not ready\n{self.log_tail()}")
            time.sleep(0.1)
        return self


@contextlib.contextmanager
def backends():
    """The three servers, in a process of their own that ends when its input does; gives what a larder needs to know."""
    process = subprocess.Popen(
        [sys.executable, SERVERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        line = process.stdout.readline()
        if not line:
            raise Failed("the backends did not start; tests/install/clients.sh installs them")
        yield json.loads(line)
    finally:
        process.stdin.close()
        process.wait(timeout=60)


def hits(bench):
    """What the backends cost where nobody should ask them (contract, section 10): at most 1.05 times the CPU of the default."""
    with bench.servers() as (larder, nginx), backends() as needs:
        directory = larder.directory.parent / "replica"
        replica = Replica(directory, bench.binary, bench.origin, needs["environment"], **needs["settings"])
        replica.start()
        try:
            measure(bench, larder, replica, nginx)
        finally:
            replica.stop()


def measure(bench, larder, replica, nginx):
    servers = (larder, replica, nginx)
    for size in ("1k", "10k"):
        for server in servers:
            warm(bench, server, server.path("files", f"f/{size}.bin"), bench.files.sha256(size))
        # What was fetched is committed, and the file is in the tier.
        time.sleep(2)
        compare_default(bench, "backends", "over the backends", servers, size)


def compare_default(bench, case, how, servers, size, numbers=(1, 64, 512)):
    """Hits of a file of this size that all three hold, on so many connections; `servers` are the default, the same program `how`, and nginx."""
    for connections in numbers:
        rows = {server.name: [] for server in servers}
        for number, server in bench.alternating(*servers, times=3 if connections == 1 else 1):
            path = server.path("files", f"f/{size}.bin")
            rows[server.name].append(load(bench, case, server, path, connections, size=size, round=number))
        name = f"{size} hit {how}, {connections} conns: CPU, beside the default's"
        default, own, beside = (of(rows[server.name], "cpu_us") for server in servers)
        bench.report.ratio("-", name, own, default, "us", at_most=1.05, peer=beside)


CASES = {"backends": hits}
