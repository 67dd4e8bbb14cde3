"""Goals 20 and 21: an upstream that is down, clients that leave, and upstreams that break off."""

import time
from concurrent.futures import ThreadPoolExecutor

from client import Connection, fetch
from cold import FORMATS, content, file_part
from data import MIB, SIZES
from documents import HTML_ACCEPT, JSON_ACCEPT
from servers import SHORT_TTL

# The repositories whose copies expire soon, and what is asked of them.
EXPIRING = (
    ("generic", "short-files", "f/10k.bin", {}),
    ("npm", "short-npm", "big-stale", {}),
    ("PyPI HTML", "short-pypi", "simple/big-stale/", HTML_ACCEPT),
    ("PyPI JSON", "short-pypi", "simple/big-stale/", JSON_ACCEPT),
    ("Helm", "short-helm", "index.yaml", {}),
)


# Clients of a download that breaks off, and its rate in MB/s.
WAITERS = 3
RATE = 50


def stale(bench):
    """Goal 20."""
    with bench.servers() as servers:
        bench.origin.set(max_age=SHORT_TTL)
        paths = {
            (server.name, name): (server, server.path(repository, path), headers)
            for server in servers
            for name, repository, path, headers in EXPIRING
        }
        bodies, hit_cpu = {}, {}
        for key, (server, path, headers) in paths.items():
            bodies[key] = fetch(server.port, path, headers, digest=True)
            fetch(server.port, path, headers)
            hit_cpu[key] = sample(server, path, headers)
        bench.origin.stop()
        time.sleep(SHORT_TTL + 0.5)
        first, later = {}, {}
        for key, (server, path, headers) in paths.items():
            first[key] = fetch(server.port, path, headers, digest=True)
            later[key] = sample(server, path, headers)
        for name, *_ in EXPIRING:
            report_stale(
                bench.report,
                name,
                *({server.name: of[server.name, name] for server in servers} for of in (bodies, first, hit_cpu, later)),
            )


def sample(server, path, headers):
    """Server CPU in microseconds per request on one connection, within the time that a copy is fresh."""
    connection = Connection(server.port)
    try:
        connection.get(path, headers)
        begun, before, count = time.monotonic(), server.cpu(), 0
        while count < 500 and time.monotonic() - begun < 1:
            if not connection.get(path, headers).is_good():
                return float("nan")
            count += 1
        return (server.cpu() - before) / count * 1e6
    finally:
        connection.close()


def report_stale(report, name, before, first, hit_cpu, later_cpu):
    report.raw("stale", format=name, first=first, hit_cpu=hit_cpu, later_cpu=later_cpu)
    whole = {server: got.is_good(before[server].sha256) for server, got in first.items()}
    what = f"origin down, copy expired, {name}"
    report.fact("20", f"{what}: whole stale body", yes(whole["larder"]), "yes", whole["larder"], yes(whole["nginx"]))
    first_ms, nginx_ms = (first[server].total * 1e3 for server in ("larder", "nginx"))
    report.bound("20", f"{what}: first answer", first_ms, 50, "ms", nginx_ms, gate="exact")
    ratio, nginx_ratio = (later_cpu[server] / hit_cpu[server] for server in ("larder", "nginx"))
    report.bound("20", f"{what}: CPU of later answers over a hit's", ratio, 1.2, "x", nginx_ratio, gate="cpu")


def yes(is_so):
    return "yes" if is_so else "no"


def client_leaves(bench):
    """Goal 21: the download belongs to the cache."""
    for name, make in FORMATS.items():
        with bench.servers(nginx=False) as larder:
            digest = bench.files.sha256(content(name, "100m"))
            path = make(bench, larder, "100m")
            bench.origin.reset()
            bench.origin.set(rate=RATE)
            fetch(larder.port, path, leave_after=5 * MIB)
            time.sleep(0.3)
            joined = fetch(larder.port, path, digest=True)
            bench.origin.set(rate=0)
            gets = bench.origin.gets(file_part(path))
            good = joined.is_good(digest) and gets == 1
            note = f"{joined.status}, {'whole' if joined.is_good(digest) else joined.error}, {gets} GETs"
            bench.report.raw("leave", format=name, note=note, first_byte=joined.first_byte)
            bench.report.fact(
                "21", f"client leaves at 5 of 100 MiB, {name}: the next joins", note, "whole, 1 GET", good
            )
            if name != "generic":
                continue
            path = make(bench, larder, "100m")
            bench.origin.reset()
            bench.origin.set(rate=RATE)
            fetch(larder.port, path, leave_after=5 * MIB)
            time.sleep(4)
            bench.origin.set(rate=0)
            later = fetch(larder.port, path, digest=True)
            gets = bench.origin.gets(file_part(path))
            good = later.is_good(digest) and gets == 1
            note = f"{'whole' if later.is_good(digest) else later.error}, {gets} GETs"
            bench.report.fact("21", f"client leaves, nobody waits, {name}: it is kept", note, "whole, 1 GET", good)


def upstream_breaks(bench):
    """Goal 21: once (can be repaired) and again and again (cannot)."""
    with bench.servers(nginx=False) as larder:
        for name, make in FORMATS.items():
            for kind in ("cut", "chunkcut"):
                for often in (1, 1_000):
                    one_break(bench, larder, name, make, kind, often)


def one_break(bench, larder, name, make, kind, often):
    digest = bench.files.sha256(content(name, "10m"))
    path = make(bench, larder, "10m")
    bench.origin.reset()
    # Ten MiB in pieces of one are more than any number of resumes that makes sense.
    bench.origin.set(**{kind: 4 if often == 1 else 1, "cuts": often, "rate": RATE})
    begun = time.monotonic()
    with ThreadPoolExecutor(WAITERS) as pool:
        results = list(pool.map(lambda _: fetch(larder.port, path, digest=True), range(WAITERS)))
    seconds = time.monotonic() - begun
    bench.origin.set(cut=0, chunkcut=0, cuts=1, rate=0)
    gets = bench.origin.gets(file_part(path))
    after = fetch(larder.port, path, digest=True)
    whole = sum(result.is_good(digest) for result in results)
    lies = sum(result.status == 200 and result.complete and result.sha256 != digest for result in results)
    then = "whole" if after.is_good(digest) else after.error or after.status
    note = f"{whole}/{WAITERS} whole, {lies} wrong, {gets} GETs; then {then}"
    bench.report.raw(
        "break", format=name, kind=kind, often=often, note=note, errors=[result.error for result in results]
    )
    label = (
        f"upstream breaks off {'in a chunk ' if kind == 'chunkcut' else ''}{'once' if often == 1 else 'always'}, {name}"
    )
    sound = lies == 0 and after.is_good(digest)
    bench.report.fact("21", f"{label}: no wrong body, the next is whole", note, "0 wrong, then whole", sound)
    longest = 1 + SIZES["10m"] / RATE / 1e6
    bench.report.bound("21", f"{label}: nobody hangs", seconds, longest, "s", gate="exact")
    if often == 1:
        bench.report.fact(
            "21 aim", f"{label}: repaired", f"{whole}/{WAITERS}", f"{WAITERS}/{WAITERS}", whole == WAITERS, gate=""
        )


CASES = {"stale": stale, "leave": client_leaves, "break": upstream_breaks}
