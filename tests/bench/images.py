"""Goal 17: manifests of images that are cached, and goals 5 and 6 for their layers."""

import bulk
import data
from hits import load, of, warm


def manifests(bench):
    digest, body = data.image(bench.files)
    accept = {"Accept": data.OCI_MANIFEST}
    with bench.servers() as servers:
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
                ours, beside = of(rows["larder"], "cpu_us"), of(rows["nginx"], "cpu_us")
                bench.report.ratio("17", f"{name}: CPU", ours, beside, "us", at_most=1.2, gate="cpu")
                bench.report.ratio("-", f"{name}: req/s", of(rows["larder"], "rps"), of(rows["nginx"], "rps"), "")


def layers(bench):
    with bench.servers() as servers:
        blob = f"app/one/blobs/sha256:{bench.files.sha256('1g')}"
        for server in servers:
            warm(bench, server, server.path("images", blob), bench.files.sha256("1g"))
        rows = {server.name: [] for server in servers}
        for number, server in bench.alternating(*servers):
            measured = bulk.transfer(server, "1g", 1, server.path("images", blob))
            bench.report.raw("layers", server=server.name, round=number, **measured)
            rows[server.name].append(measured)
        for goal, key, unit, limits in (
            ("5", "cpu_s_per_gib", "s/GiB", {"at_most": 1.1, "gate": "cpu"}),
            ("6", "mb_per_s", "MB/s", {"at_least": 1.0}),
        ):
            what = f"layer of 1 GiB cached: {'CPU' if goal == '5' else 'rate'}"
            bench.report.ratio(goal, what, of(rows["larder"], key), of(rows["nginx"], key), unit, **limits)


CASES = {"images": manifests, "layers": layers}
