"""Goals 1 to 4: cached small files, hot and out of the hot set."""

from client import fetch, wrk
from report import median
from servers import Failed


def warm(bench, server, path, sha256, headers=None):
    """Brings a path into the cache, and checks the bytes once."""
    for _ in range(3):
        got = fetch(server.port, path, headers, digest=True)
        if not got.is_good(sha256):
            raise Failed(f"{server.name} {path}: {got.status} {got.error or 'wrong bytes'}\n{server.log_tail()}")
    return got


def load(bench, case, server, path, connections, headers=None, **about):
    """One measurement by wrk; a failed request makes it worthless."""
    measured = wrk(server, path, connections, bench.seconds, headers)
    bench.report.raw(case, server=server.name, connections=connections, **about, **measured)
    if measured["failed"] or measured["requests"] == 0:
        raise Failed(f"{server.name} {path}: {measured}\n{server.log_tail()}")
    return measured


def of(rows, key):
    return median([row[key] for row in rows])


def hot(bench):
    """Goals 1 to 3."""
    with bench.servers() as servers:
        for size in ("1k", "10k"):
            for server in servers:
                warm(bench, server, server.path("files", f"f/{size}.bin"), bench.files.sha256(size))
            for connections in (1, 64, 512):
                rows = {server.name: [] for server in servers}
                # On one connection much depends on which processors the scheduler happens to choose.
                for number, server in bench.alternating(*servers, times=3 if connections == 1 else 1):
                    path = server.path("files", f"f/{size}.bin")
                    rows[server.name].append(load(bench, "hot", server, path, connections, size=size, round=number))
                compare_hits(bench.report, size, connections, rows)


def compare_hits(report, size, connections, rows):
    def compare(goal, what, key, unit, **limits):
        name = f"{size} hit, {connections} conns: {what}"
        report.ratio(goal, name, of(rows["larder"], key), of(rows["nginx"], key), unit, **limits)

    # One connection is for the scheduler to place: the goals are for many.
    small = size == "1k"
    compare("1", "CPU", "cpu_us", "us", at_most=1.0 if connections == 1 else 0.75 if small else 0.85, gate="cpu")
    if connections == 1:
        compare("3", "p50", "p50", "us", at_most=1.25)
    else:
        least = {64: 1.3, 512: 1.2} if small else {64: 1.0, 512: 0.9}
        compare("2", "req/s", "rps", "", at_least=least[connections])
    compare("-", "p99", "p99", "us")


def out_of_hot_set(bench):
    """Goal 4: no hot set at all, so each request looks up the record and opens the file."""
    with bench.servers(hot_set=0) as servers:
        for server in servers:
            warm(bench, server, server.path("files", "f/10k.bin"), bench.files.sha256("10k"))
        for connections in (1, 64):
            rows = {server.name: [] for server in servers}
            for number, server in bench.alternating(*servers):
                path = server.path("files", "f/10k.bin")
                rows[server.name].append(load(bench, "warm", server, path, connections, round=number))
            for key, unit, limits in (("cpu_us", "us", {"at_most": 1.5, "gate": "cpu"}), ("rps", "", {})):
                what = f"10k hit without hot set, {connections} conns: {'CPU' if limits else 'req/s'}"
                goal = "4" if limits else "-"
                bench.report.ratio(goal, what, of(rows["larder"], key), of(rows["nginx"], key), unit, **limits)


CASES = {"hot": hot, "warm": out_of_hot_set}
