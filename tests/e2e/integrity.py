"""What an upstream says of a file's digest is held against the file: wrong bytes are refused, and never kept."""

import helm
import npm
import npm_packages
import pypi
from archives import noise
from gpg import signer
from harness import ask, environment, expect, run, tool


def refuses(origin, path, url, right, learn):
    """Wrong bytes at `path` give 502 at `url`; the right ones, once they are there, 200.

    `learn` is what the client asks for first: the index, or nothing.
    """
    learn()
    origin.put(path, noise(len(right), "wrong"), immutable=True)
    for _ in range(2):
        ask(url, wanted=502)
    origin.put(path, right, immutable=True)
    expect(ask(url).body == right, f"{url} is wrong though the upstream has been mended")


def nothing():
    """The client asks for the file itself, without its index: what a frozen install does."""


def cuts(case, origin, path, url, right):
    """As `refuses`, for a file so large that its first part leaves before its end is here: the client must see a cut."""
    origin.put(path, noise(len(right), "wrong"), immutable=True)
    home = case.home()
    curl = [tool("curl"), "-sS", "-f", "--max-time", "30", "-o", home / "got"]
    for _ in range(2):
        run([*curl, url], cwd=home, env=environment(home), fails=True)
    origin.put(path, right, immutable=True)
    expect(ask(url).body == right, f"{url} is wrong though the upstream has been mended")


def pypi_files(case):
    origin = pypi.html_only(case)
    case.needs_larder()
    base = case.repository("pypi")
    for name, learn in (
        ("pantry_base-1.0-py3-none-any.whl", nothing),
        ("pantry_demo-1.0-py3-none-any.whl", lambda: ask(f"{base}/simple/pantry-demo/")),
    ):
        refuses(origin, f"/files/{name}", f"{base}/files/{name}", pypi.FILES[name].body, learn)


def npm_tarballs(case):
    origin, tarballs = npm.serve(case)
    case.needs_larder()
    base = case.repository("npm")
    for name, version, learn in (
        ("@pantry/spoon", "1.0.0", nothing),
        ("pantry-jam", "1.0.0", lambda: ask(f"{base}/pantry-jam", Accept=npm_packages.ABBREVIATED)),
        ("pantry-jam", "1.1.0", lambda: ask(f"{base}/pantry-jam", Accept="application/json")),
    ):
        path = npm_packages.tarball_path(name, version)
        refuses(origin, path, base + path, tarballs[f"{name}@{version}"], learn)
    path = npm_packages.tarball_path("pantry-jar", "2.0.0")
    cuts(case, origin, path, base + path, tarballs["pantry-jar@2.0.0"])


def helm_charts(case):
    with signer(case) as key:
        upstream = helm.Upstream(case, key)
    helm.serve(case, upstream)
    case.needs_larder()
    base = case.repository("charts")
    for name, learn in (("demo-0.1.0", nothing), ("demo-0.3.0-rc.1", lambda: ask(f"{base}/index.yaml"))):
        refuses(upstream.origin, f"/charts/{name}.tgz", f"{base}/{name}.tgz", upstream.charts[name], learn)


CASES = {"integrity-pypi": pypi_files, "integrity-npm": npm_tarballs, "integrity-helm": helm_charts}
