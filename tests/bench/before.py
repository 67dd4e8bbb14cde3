"""An older larder beside this one and nginx, in the same rounds: whether a change has made anything slower (`--before PROGRAM`)."""

import bulk
import data
from documents import BRIEF, INDEX, PACKUMENT, SIMPLE_HTML, SIMPLE_JSON
from hits import load, of, warm
from memory import under_connections, under_streams
from servers import Failed, Larder

# A figure that differs by more than this is worse.
AT_MOST = 1.05


class Before(Larder):
    """The older program, with the same repositories as far as it knows them."""

    name = "before"

    def __init__(self, directory, binary, origin, **settings):
        super().__init__(directory, binary, origin, without={"drain", "other-helm", "merged"}, **settings)


def before(bench):
    """Goals 1, 4, 5, 12, 13, 15, 17 and 18, beside the older program's own figures."""
    if not bench.before:
        raise Failed("which older program? Name it with --before PROGRAM")
    for settings, case in (({}, everything), ({"hot_set": 0}, out_of_hot_set)):
        with bench.servers(**settings) as (larder, nginx):
            older = Before(larder.directory.parent / "before", bench.before, bench.origin, **settings)
            older.start()
            try:
                case(bench, (larder, older, nginx))
            finally:
                older.stop()


def everything(bench, servers):
    held = {server.name: [server.memory()] for server in servers}
    compare(bench, "18", "RssAnon at rest", held, "MiB")
    for size in ("1k", "10k"):
        for connections in (64, 512):
            hit(bench, "1", f"{size} hit", servers, lambda server: server.path("files", f"f/{size}.bin"), connections)
    digest, _ = data.image(bench.files)
    for goal, reference in (("17", digest), ("17", "1")):
        name = "manifest by tag" if reference == "1" else "manifest by digest"
        accept = {"Accept": data.OCI_MANIFEST}
        hit(bench, goal, name, servers, lambda server: server.path("images", f"app/one/manifests/{reference}"), 64, accept)
    for goal, document, coding in (
        ("12", PACKUMENT, None),
        ("12", BRIEF, None),
        ("13", PACKUMENT, "gzip"),
        ("13", PACKUMENT, "zstd"),
        ("15", SIMPLE_HTML, None),
        ("15", SIMPLE_JSON, None),
        ("16", INDEX, None),
    ):
        headers = {**document.headers, **({"Accept-Encoding": coding} if coding else {})}
        path = {server.name: document.path(server, bench.fresh()) for server in servers}
        name = f"{document.name}{f', {coding}' if coding else ''}"
        hit(bench, goal, name, servers, lambda server: path[server.name], 1, headers)
    for size in ("100m", "1g"):
        for server in servers:
            warm(bench, server, server.path("files", f"f/{size}.bin"), bench.files.sha256(size))
        for streams in (1, 4):
            rows = bulk.alternately(bench, servers, size, streams)
            costs = {server: [row["cpu_s_per_gib"] for row in measured] for server, measured in rows.items()}
            compare(bench, "5", f"{size} cached, {streams} stream{'s' if streams > 1 else ''}: CPU", costs, "s/GiB")
    for name, measure in (("512 connections", under_connections), ("8 streams of 1 GiB", under_streams)):
        compare(bench, "18", f"RssAnon, {name}", {server.name: [measure(bench, server)] for server in servers}, "MiB")


def out_of_hot_set(bench, servers):
    hit(bench, "4", "10k hit without hot set", servers, lambda server: server.path("files", "f/10k.bin"), 64)


def hit(bench, goal, name, servers, path, connections, headers=None):
    for server in servers:
        warm(bench, server, path(server), None, headers)
    # Compressed forms are made behind the scenes.
    if headers and "Accept-Encoding" in headers:
        for server in servers[:2]:
            wait_for_coding(bench, server, path(server), headers)
    rows = {server.name: [] for server in servers}
    for number, server in bench.alternating(*servers):
        measured = load(bench, "before", server, path(server), connections, headers, what=name, round=number)
        rows[server.name].append(measured)
    costs = {server: [row["cpu_us"] for row in measured] for server, measured in rows.items()}
    compare(bench, goal, f"{name}, {connections} conns: CPU", costs, "us")


def wait_for_coding(bench, server, path, headers):
    for _ in range(600):
        if warm(bench, server, path, None, headers).headers.get("content-encoding") == headers["Accept-Encoding"]:
            return
    raise Failed(f"{server.name} does not send {headers['Accept-Encoding']}")


def compare(bench, goal, what, values, unit):
    """A row whose ratio is to the older program, with nginx's figure beside it."""
    rows = {server: [{"value": value} for value in list_of] for server, list_of in values.items()}
    ours, older, nginx = (of(rows[name], "value") for name in ("larder", "before", "nginx"))
    bench.report.raw("before", what=what, larder=ours, before=older, nginx=nginx)
    bench.report.ratio(goal, f"{what}, beside the older program's", ours, older, unit, at_most=AT_MOST, peer=nginx)


CASES = {"before": before}
