"""Goals 7 to 11: files that are not cached yet, for one client and for many at once."""

import http.client
import re
import time
import urllib.parse
from functools import partial

import data
from client import fetch, herd
from data import SIZES
from report import median
from servers import Failed

RATE = 100
HERD_RATE = 10


# --- paths of files that no cache knows yet, in every format ---------------------------------------------------------


def generic_file(bench, server, size):
    return server.path("files", f"n/{bench.fresh()}/f/{size}.bin")


def npm_file(bench, server, size):
    """The packument is fetched first, as every client does."""
    name, version = f"few-{bench.fresh()}", {"10m": "0.0.2", "100m": "0.0.3"}[size]
    got = fetch(server.port, server.path("npm", name))
    expect_good(server, got)
    return server.path("npm", f"{name}/-/{name}-{version}.tgz")


def pypi_file(bench, server, size):
    """The link comes from the page, as pip takes it."""
    name, version = f"few-{bench.fresh()}", {"10m": "0.0.2", "100m": "0.0.3"}[size]
    page = server.path("pypi", f"simple/{name}/")
    text = body_of(server, page)
    file = re.escape(f"{name.replace('-', '_')}-{version}-")
    link = re.search(rf'href="([^"#]*{file}[^"#]*)', text)
    if link is None:
        raise Failed(f"{server.name} {page}: no link to the wheel of {version} in\n{text[:500]}")
    link = link[1]
    return urllib.parse.urlsplit(urllib.parse.urljoin(f"http://127.0.0.1:{server.port}{page}", link)).path


def chart_file(bench, server, size):
    major = {"10m": 1, "100m": 2}[size]
    expect_good(server, fetch(server.port, server.path("charts", "index.yaml")))
    return server.path("charts", f"demo-{major}.{bench.fresh() % 500}.0.tgz")


def blob_file(bench, server, size):
    return server.path("images", f"n{bench.fresh()}/app/blobs/sha256:{bench.files.sha256(size)}")


def rpm_file(bench, server, size):
    """The metadata is read first, as every client does: so the package has a digest to be checked by."""
    repository = f"n{bench.fresh()}"
    for name in data.rpm_metadata(bench.files):
        expect_good(server, fetch(server.port, server.path("rpm", f"{repository}/repodata/{name}")))
    return server.path("rpm", f"{repository}/Packages/p-{size}-1-1.x86_64.rpm")


def apk_file(bench, server, size):
    """Without an index: its identity would need a real package of this size."""
    return server.path("apk", f"n{bench.fresh()}/x86_64/p-{size}-r0.apk")


FORMATS = {
    "generic": generic_file,
    "npm": npm_file,
    "pypi": pypi_file,
    "helm": chart_file,
    "docker": blob_file,
    "rpm": rpm_file,
    "alpine": apk_file,
}


def body_of(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("GET", path, headers={"Accept": "text/html"})
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        raise Failed(f"{server.name} {path}: {answer.status} {text[:200]}")
    return text


def expect_good(server, got):
    if not got.is_good():
        raise Failed(f"{server.name}: {got.status} {got.error}\n{server.log_tail()}")


def file_part(path):
    """What the origin's counts know a file by."""
    return path.rsplit("/", 1)[1] if "/f/" not in path else path[path.index("/n/") :]


# --- one client ------------------------------------------------------------------------------------------------------


def miss(bench):
    """Goals 7 and 8."""
    with bench.servers() as servers:
        for name, make in FORMATS.items():
            compared = servers if name == "generic" else servers[:1]
            rows = {server.name: [] for server in (bench.origin, *compared)}
            for number, server in bench.alternating(bench.origin, *compared):
                measured = one_miss(bench, server, partial(make, bench))
                bench.report.raw("miss", server=server.name, format=name, round=number, **measured)
                rows[server.name].append(measured)
            report_miss(bench.report, name, rows)


def one_miss(bench, server, make):
    path = f"/n/{bench.fresh()}/f/100m.bin" if server is bench.origin else make(server, "100m")
    bench.origin.reset()
    bench.origin.set(rate=RATE)
    before = server.cpu()
    with server.peak() as peak:
        got = fetch(server.port, path, digest=True)
    used = server.cpu() - before
    bench.origin.set(rate=0)
    if not got.is_good(bench.files.sha256("100m")):
        raise Failed(f"{server.name} {path}: {got.status} {got.error or 'wrong bytes'}\n{server.log_tail()}")
    return {
        "first_byte_ms": got.first_byte * 1e3,
        "total_s": got.total,
        "cpu_s": used,
        "rss_growth": peak.growth("VmRSS"),
        "anon_growth": peak.growth("RssAnon"),
        "gets": bench.origin.gets(file_part(path)) if server is not bench.origin else 1,
    }


def report_miss(report, name, rows):
    def of(server, key):
        return median([row[key] for row in rows[server]]) if server in rows else None

    what = f"cold 100m at {RATE} MB/s, {name}"
    beside = of("nginx", "first_byte_ms")
    origin = of("origin", "first_byte_ms")
    report.bound(
        "7",
        f"{what}: first byte after the origin's",
        of("larder", "first_byte_ms") - origin,
        5,
        "ms",
        beside and beside - origin,
    )
    total = of("larder", "total_s") / of("origin", "total_s")
    nginx_total = of("nginx", "total_s")
    report.bound(
        "8", f"{what}: time over the origin's", total, 1.02, "x", nginx_total and nginx_total / of("origin", "total_s")
    )
    report.bound("8", f"{what}: CPU with digests", of("larder", "cpu_s"), 0.35, "s", of("nginx", "cpu_s"), gate="cpu")
    report.bound(
        "8", f"{what}: RSS growth", of("larder", "rss_growth"), 8, "MiB", of("nginx", "rss_growth"), gate="exact"
    )
    gets = max(row["gets"] for row in rows["larder"])
    report.fact("9", f"{what}: origin GETs", gets, "1", gets == 1)


# --- many clients ----------------------------------------------------------------------------------------------------


def herds(bench):
    """Goals 9 to 11."""
    with bench.servers() as servers:
        for name, make in FORMATS.items():
            correctness(
                bench,
                servers[0],
                f"64 clients, 10m, {name}",
                partial(make, bench, servers[0], "10m"),
                "10m",
                64,
                rate=50,
            )
        for count in (64, 512):
            make = partial(generic_file, bench, servers[0], "1k")
            correctness(bench, servers[0], f"{count} clients, 1k", make, "1k", count, delay=0.3)
        timing(bench, servers, 64)
        correctness(
            bench, servers[0], "512 clients, 10m", partial(generic_file, bench, servers[0], "10m"), "10m", 512, rate=10
        )
        timing(bench, servers[:1], 512)


def correctness(bench, server, what, make, size, count, **behaviour):
    path = make()
    bench.origin.reset()
    bench.origin.set(**behaviour)
    results = herd(server.port, path, count, digest=True)
    bench.origin.set(rate=0, delay=0)
    good = sum(result.is_good(bench.files.sha256(size)) for result in results)
    gets = bench.origin.gets(file_part(path))
    bench.report.raw(
        "herd",
        server=server.name,
        what=what,
        good=good,
        gets=gets,
        first_error=next((r.error for r in results if r.error), ""),
    )
    bench.report.fact("9", f"{what}: origin GETs", gets, "1", gets == 1)
    bench.report.fact("9", f"{what}: correct bodies", f"{good}/{count}", f"{count}/{count}", good == count)


def timing(bench, servers, count):
    rows = {server.name: [] for server in (bench.origin, *servers)}
    for number, server in bench.alternating(bench.origin, *servers):
        measured = one_herd(bench, server, count)
        bench.report.raw("herd", server=server.name, clients=count, round=number, **measured)
        rows[server.name].append(measured)

    def of(server, key):
        return median([row[key] for row in rows[server]]) if server in rows else None

    what = f"{count} clients, cold 10m at {HERD_RATE} MB/s"
    report = bench.report
    if count == 64:
        origin = of("origin", "total_s")
        report.bound(
            "10",
            f"{what}: last first byte after the leader's",
            of("larder", "spread_ms"),
            100,
            "ms",
            of("nginx", "spread_ms"),
        )
        report.bound(
            "10",
            f"{what}: all done, over the origin's time",
            of("larder", "total_s") / origin,
            1.10,
            "x",
            of("nginx", "total_s") / origin,
        )
    at_most = 32 if count == 64 else 64
    report.bound(
        "11",
        f"{what}: RssAnon growth",
        of("larder", "anon_growth"),
        at_most,
        "MiB",
        of("nginx", "anon_growth"),
        gate="exact",
    )


def one_herd(bench, server, count):
    path = generic_file(bench, server, "10m") if server is not bench.origin else f"/n/{bench.fresh()}/f/10m.bin"
    bench.origin.set(rate=HERD_RATE)
    with server.peak() as peak:
        results = herd(server.port, path, count if server is not bench.origin else 1)
    bench.origin.set(rate=0)
    # No client must be left with a descriptor of the download before.
    time.sleep(0.1)
    bad = [result for result in results if not result.is_good() or result.length != SIZES["10m"]]
    if bad:
        raise Failed(
            f"{server.name} {path}: {len(bad)} of {count}: {bad[0].status} {bad[0].error}\n{server.log_tail()}"
        )
    first = sorted(result.first_byte for result in results)
    return {
        "spread_ms": (first[-1] - first[0]) * 1e3,
        "total_s": max(result.total for result in results),
        "anon_growth": peak.growth("RssAnon"),
        "rss_growth": peak.growth("VmRSS"),
    }


CASES = {"miss": miss, "herd": herds}
