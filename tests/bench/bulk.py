"""Goals 5 and 6: cached large files to clients that read as fast as they can."""

import threading
import time

from client import fetch
from data import GIB, SIZES
from hits import of, warm
from servers import Failed


def bulk(bench):
    with bench.servers() as servers:
        for size in ("100m", "1g"):
            for server in servers:
                warm(bench, server, server.path("files", f"f/{size}.bin"), bench.files.sha256(size))
            for streams in (1, 4):
                compare(bench.report, size, streams, alternately(bench, servers, size, streams))


def alternately(bench, servers, size, streams):
    """Rows by server: the same transfers from each, in turn."""
    rows = {server.name: [] for server in servers}
    for number, server in bench.alternating(*servers):
        measured = transfer(server, size, streams)
        bench.report.raw("bulk", server=server.name, size=size, streams=streams, round=number, **measured)
        rows[server.name].append(measured)
    return rows


def transfer(server, size, streams, path=None, length=None):
    """1 GiB for each stream."""
    path = path or server.path("files", f"f/{size}.bin")
    length = length or SIZES[size]
    incomplete = []

    def read():
        for _ in range(max(1, GIB // SIZES[size])):
            got = fetch(server.port, path)
            if not got.is_good():
                incomplete.append(got.error or got.status)

    threads = [threading.Thread(target=read) for _ in range(streams)]
    before, begun = server.cpu(), time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, used = time.monotonic() - begun, server.cpu() - before
    if incomplete:
        raise Failed(f"{server.name} {path}: {incomplete[0]}\n{server.log_tail()}")
    total = streams * max(1, GIB // SIZES[size]) * length
    return {"mb_per_s": total / seconds / 1e6, "cpu_s_per_gib": used / (total / GIB)}


def compare(report, size, streams, rows):
    large = size == "1g"
    for goal, key, unit, limits in (
        ("5", "cpu_s_per_gib", "s/GiB", {"at_most": 1.0, "gate": "cpu"}),
        ("6", "mb_per_s", "MB/s", {"at_least": 1.0 if large else 0.75}),
    ):
        what = f"{size} cached, {streams} stream{'s' if streams > 1 else ''}: {'CPU' if goal == '5' else 'rate'}"
        report.ratio(goal, what, of(rows["larder"], key), of(rows["nginx"], key), unit, **limits)


CASES = {"bulk": bulk}
