"""Hits of a larder whose disk is bounded, so that each use is noted, beside one that is not, and nginx, in turns."""

import time

from backends import compare_default
from hits import warm
from servers import Larder

DISK = "20GiB"
# By size, on how many connections.
IN_HOT_SET = {"1k": (1, 64, 512), "10k": (1, 64, 512), "100m": (1, 4)}
OUT_OF_IT = {"10k": (1, 64)}


class Bounded(Larder):
    """The same program with `limits.disk`."""

    name = "bounded"


def bounded(bench):
    """What noting uses costs: at most 1.05 times the CPU of the default. In memory, as an open file, and out of the hot set."""
    for hot_set, sizes in ((64 << 20, IN_HOT_SET), (0, OUT_OF_IT)):
        with bench.servers(hot_set=hot_set) as (larder, nginx):
            directory = larder.directory.parent / "bounded"
            limited = Bounded(directory, bench.binary, bench.origin, hot_set=hot_set, limits={"disk": DISK})
            limited.start()
            try:
                servers = (larder, limited, nginx)
                for size, numbers in sizes.items():
                    for server in servers:
                        warm(bench, server, server.path("files", f"f/{size}.bin"), bench.files.sha256(size))
                    # What was fetched is committed.
                    time.sleep(1)
                    how = "with limits.disk" if hot_set else "with limits.disk, without hot set"
                    compare_default(bench, "bounded", how, servers, size, numbers)
            finally:
                limited.stop()


CASES = {"bounded": bounded}
