"""Goals 12 to 16: documents whose links larder changes, beside nginx, which sends them as they are."""

import time

from client import fetch
from hits import load, of, warm
from report import median
from servers import Failed

JSON_ACCEPT = {"Accept": "application/vnd.pypi.simple.v1+json"}
HTML_ACCEPT = {"Accept": "text/html"}
ABBREVIATED = {"Accept": "application/vnd.npm.install-v1+json"}

# Compressed forms are made behind the scenes; by then they must be there.
CODING_SECONDS = 30


class Document:
    """A kind of document: where it is, what it is asked for with, and what larder asks its upstream with, if that is something else."""

    def __init__(self, name, repository, path, headers=None, larder_asks=None):
        self.name = name
        self.headers = headers or {}
        self._larder_asks = larder_asks or self.headers
        self._repository = repository
        self._path = path

    def path(self, server, number):
        return server.path(self._repository, self._path.format(number))

    def upstream_headers(self, server):
        return self._larder_asks if server.name == "larder" else self.headers

    def origin_path(self, number):
        return f"/{self._repository}/{self._path.format(number)}"


PACKUMENT = Document("npm 10 MB packument", "npm", "big-{}")
BRIEF = Document("npm abbreviated packument", "npm", "big-{}", ABBREVIATED)
# larder makes both forms of the upstream's JSON.
SIMPLE_HTML = Document("PyPI 3,000 files HTML", "pypi", "simple/big-{}/", HTML_ACCEPT, JSON_ACCEPT)
SIMPLE_JSON = Document("PyPI 3,000 files JSON", "pypi", "simple/big-{}/", JSON_ACCEPT)
INDEX = Document("Helm 20 MB index", "helm", "n{}/index.yaml")
MERGED = Document("Helm 20 MB index merged of two", "merged", "n{}/index.yaml")


def misses(bench, servers, document):
    """Rows by server: how much longer than the origin's a first request takes, with CPU and memory."""
    rows = {server.name: [] for server in servers}
    for number, server in bench.alternating(*servers):
        name = bench.fresh()
        # The first request makes the origin put the document together; the second is timed. Both are for what the server will ask for.
        asked = document.upstream_headers(server)
        fetch(bench.origin.port, document.origin_path(name), asked)
        direct = fetch(bench.origin.port, document.origin_path(name), asked)
        before = server.cpu()
        with server.peak() as peak:
            got = fetch(server.port, document.path(server, name), document.headers)
            used = server.cpu() - before
        if not got.is_good():
            raise Failed(f"{server.name} {document.path(server, name)}: {got.status} {got.error}\n{server.log_tail()}")
        measured = {
            "over_ms": (got.total - direct.total) * 1e3,
            "total_ms": got.total * 1e3,
            "cpu_ms": used * 1e3,
            "rss_growth": peak.growth("VmRSS"),
            "length": got.length,
        }
        bench.report.raw("document miss", server=server.name, document=document.name, round=number, **measured)
        rows[server.name].append(measured)
    return rows


def cached(bench, servers, document, headers=None):
    """Rows by server of cached requests on one connection."""
    headers = {**document.headers, **(headers or {})}
    paths = {server.name: document.path(server, bench.fresh()) for server in servers}
    rows = {server.name: [] for server in servers}
    for server in servers:
        warm(bench, server, paths[server.name], None, headers)
    for number, server in bench.alternating(*servers):
        measured = load(
            bench, "document hit", server, paths[server.name], 1, headers, document=document.name, round=number
        )
        rows[server.name].append(measured)
    return rows


def npm(bench):
    """Goals 12 to 14."""
    report = bench.report
    identity = {}
    with bench.servers() as servers:
        for document in (PACKUMENT, BRIEF):
            rows = cached(bench, servers, document)
            larder, nginx = (of(rows[server.name], "cpu_us") / 1e3 for server in servers)
            report.ratio("12", f"{document.name}, cached: CPU", larder, nginx, "ms", at_most=1.1, gate="cpu")
            identity[document.name] = nginx
        for document in (PACKUMENT, BRIEF):
            for coding in ("gzip", "zstd"):
                coded(bench, servers[0], document, coding, identity[document.name])
        for document in (PACKUMENT, BRIEF):
            rows = misses(bench, servers, document)
            over, nginx_over = (of(rows[server.name], "over_ms") for server in servers)
            used, nginx_used = (of(rows[server.name], "cpu_ms") for server in servers)
            report.bound("14", f"{document.name}, miss: time over the origin's", over, 60, "ms", nginx_over)
            report.bound(
                "14", f"{document.name}, miss: CPU until the last byte", used, 60, "ms", nginx_used, gate="cpu"
            )


def coded(bench, larder, document, coding, nginx):
    """Goal 13: the compressed form is made once, never on a request's way. `nginx`: what the same document costs it, which it sends as it is, in
    milliseconds of CPU."""
    headers = {**document.headers, "Accept-Encoding": coding}
    path = document.path(larder, bench.fresh())
    identity = warm(bench, larder, path, None, document.headers)
    begun = time.monotonic()
    while (got := fetch(larder.port, path, headers)).headers.get("content-encoding") != coding:
        if time.monotonic() - begun > CODING_SECONDS:
            bench.report.fact("13", f"{document.name}, {coding}", "never", f"within {CODING_SECONDS} s", False)
            return
        time.sleep(0.02)
    made_after = time.monotonic() - begun
    vary = got.headers.get("vary", "").lower()
    measured = [
        load(bench, "coded", larder, path, 1, headers, document=document.name, coding=coding)
        for _ in range(bench.rounds)
    ]
    what = f"{document.name}, {coding}, cached"
    bench.report.raw("coded", document=document.name, coding=coding, made_after=made_after, length=got.length)
    # The third and the quarter are the full packument's; the abbreviated one holds more that does not compress.
    goal, cost, share = ("13", 0.35, 0.25) if document is PACKUMENT else ("-", 1.0, 1.0)
    used = of(measured, "cpu_us") / 1e3
    bench.report.ratio(goal, f"{what}: CPU beside the whole", used, nginx, "ms", at_most=cost, gate="cpu")
    bench.report.bound(goal, f"{what}: share of the bytes", got.length / identity.length, share, "x", gate="exact")
    bench.report.fact("13", f"{what}: Vary", vary, "names Accept-Encoding", "accept-encoding" in vary)


def pypi(bench):
    """Goal 15."""
    report = bench.report
    with bench.servers() as servers:
        for document in (SIMPLE_HTML, SIMPLE_JSON):
            rows = cached(bench, servers, document)
            larder, nginx = (of(rows[server.name], "cpu_us") / 1e3 for server in servers)
            report.ratio("15", f"{document.name}, cached: CPU", larder, nginx, "ms", at_most=1.0, gate="cpu")
            rows = misses(bench, servers, document)
            over, nginx_over = (of(rows[server.name], "over_ms") for server in servers)
            report.bound("15", f"{document.name}, miss: time over the origin's", over, 15, "ms", nginx_over)
            used, nginx_used = (of(rows[server.name], "cpu_ms") for server in servers)
            report.ratio("-", f"{document.name}, miss: CPU", used, nginx_used, "ms")


def helm(bench):
    """Goal 16."""
    report = bench.report
    with bench.servers() as servers:
        rows = cached(bench, servers, INDEX)
        larder, nginx = (of(rows[server.name], "cpu_us") / 1e3 for server in servers)
        report.ratio("16", f"{INDEX.name}, cached: CPU", larder, nginx, "ms", at_most=1.1, gate="cpu")
        rows = misses(bench, servers, INDEX)
        over, nginx_over = (of(rows[server.name], "over_ms") for server in servers)
        report.bound("16", f"{INDEX.name}, miss: time over the origin's", over, 100, "ms", nginx_over)
        used, nginx_used = (of(rows[server.name], "cpu_ms") for server in servers)
        report.ratio("-", f"{INDEX.name}, miss: CPU", used, nginx_used, "ms")
        growth = median([row["rss_growth"] for row in rows["larder"]])
        twice = 2 * rows["larder"][0]["length"] / (1 << 20)
        nginx_growth = median([row["rss_growth"] for row in rows["nginx"]])
        report.bound("16", f"{INDEX.name}, miss: RSS growth", growth, twice, "MiB", nginx_growth, gate="exact")
        rows = cached(bench, servers, MERGED)
        larder, nginx = (of(rows[server.name], "cpu_us") / 1e3 for server in servers)
        report.ratio("16", f"{MERGED.name}, cached: CPU", larder, nginx, "ms", at_most=1.1, gate="cpu")


CASES = {"npm": npm, "pypi": pypi, "helm": helm}
