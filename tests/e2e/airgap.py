"""An air gap: pip, npm, helm and skopeo install through one larder; what it holds is exported, and imported into another one that has no
upstream; there they install the same."""

import json

import helm
import npm_packages
import pypi_packages
from harness import Larder, expect, expect_equal, run
from npm import INSTALLED, Project
from oci import Containers, copied, remote
from oci_images import Registry
from pypi import Pip

CACHE = {"immutable_ttl": 0, "mutable_ttl": 0}


def carried(case):
    case.needs_larder()
    pypi, npm, registry = case.origin("pypi"), case.origin("npm"), Registry(case)
    pypi_packages.serve_html_only(pypi)
    npm_packages.serve(npm)
    charts = helm.Upstream(case, None)
    remotes = {
        "pypi": {"base_url": pypi.url, "type": "remote", "package": "pypi", "cache": CACHE},
        "npm": {"base_url": npm.url, "type": "remote", "package": "npm", "cache": CACHE},
        "charts": {
            "base_url": charts.url,
            "type": "remote",
            "package": "helm",
            "allow_private": [charts.elsewhere.host],
            "cache": CACHE,
        },
        "images": remote(registry),
    }
    case.serve(remotes)
    install(case, case.listens_at, charts, registry)
    archive = case.directory / "kitchen.tar"
    told = command(case, case.listens_at, "export", archive)
    expect_equal("what is left out", (told["left_out_rows"], told["left_out_blobs"], told["damaged_blobs"]), (0, 0, 0))
    names = run(["tar", "tf", archive], cwd=case.directory, env={"PATH": "/usr/bin:/bin"}).split()
    expect_equal("the first entry", names[0], "larder-export.json")
    case.stop_larder()
    for origin in case.origins():
        origin.stop()

    directory = case.directory / "island"
    directory.mkdir()
    settings, environment = case.settings_of_another()
    island = Larder(case.binary, directory, remotes, settings, environment)
    island.start()
    try:
        taken = command(case, island.url, "import", archive, "--sha256", told["sha256"])
        expect_equal("rows that are new", taken["written"], told["rows"])
        install(case, island.url, charts, registry)
    finally:
        wrong = island.stop()
    expect(wrong is None, wrong)


def command(case, url, *arguments):
    """Runs a command that asks a larder; gives what it says."""
    printed = run([case.binary, *arguments, "--json"], cwd=case.directory, env={"LARDER_URL": url})
    return json.loads(printed)


def install(case, url, charts, registry):
    """What the clients do, each with empty caches."""
    repository = f"{url}/api/v1/remote/"
    pip = Pip(case.home(), repository + "pypi/simple")
    site = pip.home / "site"
    pip("install", "--target", site, "pantry-demo", "pantry.dotted-name")
    expect_equal("installed pantry-demo", pip.version_of("pantry_demo", site), "1.1")
    project = Project(case.home(), repository + "npm")
    project("npm", "install", "--no-audit", "--no-fund")
    expect_equal("installed", project.installed(), INSTALLED)
    do = helm.Helm("helm4", case.home())
    do("repo", "add", "pantry", repository + "charts")
    # The second one is on another host.
    for name, version in (("common", "1.0.0"), ("remote", "1.0.0")):
        helm.pulled(do, charts, f"pantry/{name}", version)
    host = url.removeprefix("http://")
    containers = Containers(case.home(), insecure=[host])
    copied(containers, registry, f"{host}/images", "app/single", ":1.0", "--preserve-digests")
    copied(containers, registry, f"{host}/images", "app/multi", ":1.0", "--all", "--preserve-digests")


CASES = {"airgap-clients": carried}
