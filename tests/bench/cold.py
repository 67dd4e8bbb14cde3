"""Goals 7 to 11: files that are not cached yet, for one client and for many at once."""

import http.client
import re
import time
import urllib.parse
from functools import partial

import data
from client import fetch, herd
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
    """The index is read first, as every client does: so the package has an identity to be checked by."""
    folder = f"n{bench.fresh()}/x86_64"
    expect_good(server, fetch(server.port, server.path("apk", f"{folder}/APKINDEX.tar.gz")))
    return server.path("apk", f"{folder}/p-{size}-1-r0.apk")


FORMATS = {
    "generic": generic_file,
    "npm": npm_file,
    "pypi": pypi_file,
    "helm": chart_file,
    "docker": blob_file,
    "rpm": rpm_file,
    "alpine": apk_file,
}


# The formats of which a whole column is measured: beside nginx, and for images beside another registry.
COMPARED = {"generic": ("nginx",), "docker": ("nginx", "registry"), "rpm": ("nginx",), "alpine": ("nginx",)}


def content(format_name, size):
    """Which of the files a format's file of this size is."""
    return f"apk-{size}" if format_name == "alpine" else size


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
    with bench.servers(registry=True) as servers:
        for name, make in FORMATS.items():
            compared = [server for server in servers if server is servers[0] or server.name in COMPARED.get(name, ())]
            rows = {server.name: [] for server in (bench.origin, *compared)}
            for number, server in bench.alternating(bench.origin, *compared):
                measured = one_miss(bench, server, partial(make, bench), content(name, "100m"))
                bench.report.raw("miss", server=server.name, format=name, round=number, **measured)
                rows[server.name].append(measured)
            report_miss(bench.report, name, rows)


def one_miss(bench, server, make, name):
    # The origin's own time is that of the plain file, which is as good as as long.
    name = name if server is not bench.origin else "100m"
    path = f"/n/{bench.fresh()}/f/100m.bin" if server is bench.origin else make(server, "100m")
    bench.origin.reset()
    bench.origin.set(rate=RATE)
    before = server.cpu()
    with server.peak() as peak:
        got = fetch(server.port, path, digest=True)
    used = server.cpu() - before
    bench.origin.set(rate=0)
    if not got.is_good(bench.files.sha256(name)):
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

    def over(server, key, by):
        value = of(server, key)
        return value if value is None else by(value, of("origin", key))

    def bound(goal, what, values, at_most, unit, gate=""):
        larder, nginx, peer = (values(server) for server in ("larder", "nginx", "registry"))
        report.bound(goal, f"cold 100m at {RATE} MB/s, {name}: {what}", larder, at_most, unit, nginx, gate, peer)

    bound("7", "first byte after the origin's", lambda server: over(server, "first_byte_ms", lambda a, b: a - b), 5, "ms")
    bound("8", "time over the origin's", lambda server: over(server, "total_s", lambda a, b: a / b), 1.02, "x")
    bound("8", "CPU with digests", lambda server: of(server, "cpu_s"), 0.35, "s", "cpu")
    bound("8", "RSS growth", lambda server: of(server, "rss_growth"), 8, "MiB", "exact")
    gets = {server: max(row["gets"] for row in rows[server]) for server in rows}
    beside = {"nginx": gets.get("nginx", ""), "peer": gets.get("registry", "")}
    report.fact("9", f"cold 100m, {name}: origin GETs", gets["larder"], "1", gets["larder"] == 1, **beside)


# --- many clients ----------------------------------------------------------------------------------------------------


def herds(bench):
    """Goals 9 to 11."""
    with bench.servers(registry=True) as servers:
        larder = servers[0]
        for name, make in FORMATS.items():
            make = partial(make, bench, larder, "10m")
            correctness(bench, larder, f"64 clients, 10m, {name}", make, content(name, "10m"), 64, rate=50)
        for count in (64, 512):
            make = partial(generic_file, bench, larder, "1k")
            correctness(bench, larder, f"{count} clients, 1k", make, "1k", count, delay=0.3)
        for name, others in COMPARED.items():
            timing(bench, [server for server in servers if server is larder or server.name in others], name, 64)
        make = partial(generic_file, bench, larder, "10m")
        correctness(bench, larder, "512 clients, 10m", make, "10m", 512, rate=10)
        timing(bench, [larder], "generic", 512)


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


def timing(bench, servers, name, count):
    rows = {server.name: [] for server in (bench.origin, *servers)}
    for number, server in bench.alternating(bench.origin, *servers):
        measured = one_herd(bench, server, name, count)
        bench.report.raw("herd", server=server.name, format=name, clients=count, round=number, **measured)
        rows[server.name].append(measured)

    def of(server, key):
        return median([row[key] for row in rows[server]]) if server in rows else None

    def bound(goal, what, values, at_most, unit, gate=""):
        larder, nginx, peer = (values(server) for server in ("larder", "nginx", "registry"))
        what = f"{count} clients, cold 10m at {HERD_RATE} MB/s, {name}: {what}"
        bench.report.bound(goal, what, larder, at_most, unit, nginx, gate, peer)

    if count == 64:
        origin = of("origin", "total_s")
        bound("10", "last first byte after the leader's", lambda server: of(server, "spread_ms"), 100, "ms")
        bound(
            "10",
            "all done, over the origin's time",
            lambda server: of(server, "total_s") / origin if server in rows else None,
            1.10,
            "x",
        )
    bound("11", "RssAnon growth", lambda server: of(server, "anon_growth"), 32 if count == 64 else 64, "MiB", "exact")
    gets = {server: max(row["gets"] for row in rows[server]) for server in rows}
    what = f"{count} clients, cold 10m at {HERD_RATE} MB/s, {name}: origin GETs"
    beside = {"nginx": gets.get("nginx", ""), "peer": gets.get("registry", "")}
    bench.report.fact("9", what, gets["larder"], "1", gets["larder"] == 1, **beside)


def one_herd(bench, server, format_name, count):
    name = content(format_name, "10m")
    if server is bench.origin:
        path, name, count = f"/n/{bench.fresh()}/f/10m.bin", "10m", 1
    else:
        path = FORMATS[format_name](bench, server, "10m")
    bench.origin.reset()
    bench.origin.set(rate=HERD_RATE)
    with server.peak() as peak:
        results = herd(server.port, path, count)
    bench.origin.set(rate=0)
    # No client must be left with a descriptor of the download before.
    time.sleep(0.1)
    bad = [result for result in results if not result.is_good() or result.length != bench.files.length(name)]
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
        "gets": bench.origin.gets(file_part(path)),
    }


CASES = {"miss": miss, "herd": herds}
