"""Goal 17: manifests of images that are cached; goals 5 and 6 for layers, RPMs and apks. Beside nginx, and images beside another
registry."""

import functools

import bulk
import data
from cold import apk_file, rpm_file
from data import GIB
from hits import load, of, warm


def beside(rows, key):
    """The values of nginx and of the registry."""
    return of(rows["nginx"], key), of(rows["registry"], key) if "registry" in rows else None


def manifests(bench):
    digest, body = data.image(bench.files)
    accept = {"Accept": data.OCI_MANIFEST}
    with bench.servers(registry=True) as servers:
        for what, reference in (("digest", digest), ("tag", "1")):
            for server in servers:
                path = server.path("images", f"app/one/manifests/{reference}")
                warm(bench, server, path, digest.removeprefix("sha256:"), accept)
            for connections in (1, 64):
                rows = {server.name: [] for server in servers}
                for number, server in bench.alternating(*servers):
                    path = server.path("images", f"app/one/manifests/{reference}")
                    measured = load(bench, "images", server, path, connections, accept, reference=what, round=number)
                    rows[server.name].append(measured)
                name = f"manifest by {what} ({len(body)} bytes), {connections} conns"
                for goal, label, key, unit, limits in (
                    ("17", "CPU", "cpu_us", "us", {"at_most": 1.2, "gate": "cpu"}),
                    ("-", "req/s", "rps", "", {}),
                ):
                    nginx, peer = beside(rows, key)
                    bench.report.ratio(goal, f"{name}: {label}", of(rows["larder"], key), nginx, unit, peer=peer, **limits)


def packages(bench):
    """Layers, RPMs and apks, as files that are verified and kept."""
    with bench.servers(registry=True) as servers:
        larder, nginx, _ = servers

        def layer(server, size):
            return server.path("images", f"app/one/blobs/sha256:{bench.files.sha256(size)}")

        def of_repository(make):
            """The path of one file, in a repository whose metadata has been read."""
            return functools.cache(lambda server, size: make(bench, server, size))

        for what, size, name, path, compared in (
            ("layer of 1 GiB", "1g", "1g", layer, servers),
            ("layer of 100 MiB", "100m", "100m", layer, servers),
            ("RPM of 1 GiB", "1g", "1g", of_repository(rpm_file), (larder, nginx)),
            ("RPM of 100 MiB", "100m", "100m", of_repository(rpm_file), (larder, nginx)),
            ("apk of 100 MiB", "100m", "apk-100m", of_repository(apk_file), (larder, nginx)),
        ):
            for server in compared:
                warm(bench, server, path(server, size), bench.files.sha256(name))
            rows = {server.name: [] for server in compared}
            # Much depends on which processors the scheduler happens to choose.
            for number, server in bench.alternating(*compared, times=3):
                measured = bulk.transfer(server, size, 1, path(server, size), bench.files.length(name))
                bench.report.raw("packages", what=what, server=server.name, round=number, **measured)
                rows[server.name].append(measured)
            large = bench.files.length(name) >= GIB
            for goal, label, key, unit, limits in (
                ("5", "CPU", "cpu_s_per_gib", "s/GiB", {"at_most": 1.1 if large else 1.3, "gate": "cpu"}),
                ("6", "rate", "mb_per_s", "MB/s", {"at_least": 1.0 if large else 0.75}),
            ):
                of_nginx, peer = beside(rows, key)
                bench.report.ratio(
                    goal, f"{what}, cached: {label}", of(rows["larder"], key), of_nginx, unit, peer=peer, **limits
                )


CASES = {"images": manifests, "packages": packages}
