"""The clients of `prints`: how each is made to ask, and what it carries of larder's answers."""

import hashlib
import json

import npm_packages
from alpine import Apk
from alpine_packages import ARCH, BRANCH, Publisher
from gpg import signer
from harness import environment, run, tool
from helm import Helm, chart
from npm import Project
from oci import Containers
from oci_images import Registry
from prints import Said, link_to, prints, repositories
from pypi import DEMO, Pip, Uv
from pypi_packages import serve_json
from rpm import Dnf
from rpm_packages import pantry

REASON = ("status", "reason")
ALL = ("status", "reason", "sentence")
STATUS = ("status",)
NOTHING = ()
UNKNOWN = "no-such-package"


def wanted(failure, name):
    """What is asked for: a name that the upstream has not got, where that is the failure."""
    return UNKNOWN if failure == "wrong name" else name


# --- Python ------------------------------------------------------------------------------------------------------------


def python(case):
    """An index of Python packages behind larder; gives a function of failure and repository to the path that is refused."""
    index, files = case.origin("index"), case.origin("files")
    serve_json(index, files)
    entries = repositories(files.url, "pypi", r"pantry_demo-.*\.whl", index_url=f"{index.url}/simple")
    down = entries["pantry-down"]
    down["index_url"] = down["base_url"] + "/simple"
    case.serve(entries)

    def refused(failure, repository):
        page = f"{case.repository(repository)}/simple/{wanted(failure, 'pantry-demo')}/"
        if failure in ("pattern", "quarantine"):
            return link_to(page, DEMO.name)
        return page.removeprefix(case.listens_at)

    return refused


def pip(case):
    refused = python(case)
    version = run([tool("pip"), "--version"], cwd=case.home(), env=environment(case.home())).partition(" from")[0]

    def say(failure, repository):
        url = f"{case.repository(repository)}/simple"
        name = wanted(failure, "pantry-demo")
        do = Pip(case.home(), url)
        output = do("install", "--no-deps", "--target", "site", name, fails=True)
        if failure not in ("pattern", "quarantine"):
            # pip takes an index that fails for one that has nothing, and says why only when it is told to say everything.
            everything = do("install", "-vv", "--no-deps", "--target", "site", name, fails=True)
            why = [line.strip() for line in everything.splitlines() if "Could not fetch URL" in line]
            output = "\n".join([output.rstrip(), "", "with -vv also:", *why])
        # pip tries a 502 again, and then prints its number alone.
        carries = STATUS if failure == "upstream down" else REASON
        return Said(f"pip install --index-url {url} {name}", output, refused(failure, repository), carries)

    return version, say


def uv(case):
    refused = python(case)
    version = run([tool("uv"), "--version"], cwd=case.home(), env=environment(case.home())).partition(" (")[0]

    def say(failure, repository):
        url, home = f"{case.repository(repository)}/simple", case.home()
        name = wanted(failure, "pantry-demo")
        do = Uv(home, url)
        arguments = ["pip", "install", "--no-deps", "--target", home / "site", "--default-index", url, name]
        output = do(*arguments, fails=True)
        # A 404 of an index is a package that is not there, to uv.
        carries = NOTHING if failure.startswith("wrong") else REASON
        return Said(f"uv pip install --default-index {url} {name}", output, refused(failure, repository), carries)

    return version, say


# --- JavaScript --------------------------------------------------------------------------------------------------------


def javascript(client, arguments, carries):
    """npm, pnpm, yarn and bun: `carries` is of a packument and of a tarball, or of failures by name."""

    def prepare(case):
        origin = case.origin()
        npm_packages.serve(origin)
        case.serve(repositories(origin.url, "npm", r"pantry-jar-.*\.tgz"))
        home = case.home()
        version = run([tool(client), "--version"], cwd=home, env=environment(home)).strip()

        def say(failure, repository):
            base, name = case.repository(repository), wanted(failure, "pantry-jar")
            project = Project(case.home(), base)
            dependencies = {name: "2.0.0"}
            package = {"name": "app", "version": "1.0.0", "private": True, "dependencies": dependencies}
            project.write("package.json", json.dumps(package))
            output = project(client, *arguments, fails=True)
            of_file = failure in ("pattern", "quarantine")
            path = npm_packages.tarball_path(name, "2.0.0") if of_file else f"/{name}"
            command = f"{client.rstrip('4')} install (of {name}, with registry={base}/)"
            return Said(command, output, base.removeprefix(case.listens_at) + path, carries)

        return f"{client.rstrip('4')} {version}", say

    return prepare


# --- Helm --------------------------------------------------------------------------------------------------------------


def helm(case):
    origin = case.origin()
    body = chart("demo", "0.1.0")
    origin.put("/demo-0.1.0.tgz", body, immutable=True)
    digest = hashlib.sha256(body).hexdigest()
    entry = f"  - name: demo\n    version: 0.1.0\n    apiVersion: v2\n    digest: {digest}\n    urls: [demo-0.1.0.tgz]\n"
    origin.put("/index.yaml", f"apiVersion: v1\nentries:\n  demo:\n{entry}", "text/yaml")
    case.serve(repositories(origin.url, "helm", r"demo-.*\.tgz"))
    version = Helm("helm4", case.home())("version", "--short").strip().partition("+")[0]

    def say(failure, repository):
        base = case.repository(repository)
        name = wanted(failure, "demo")
        do = Helm("helm4", case.home())
        output = do("pull", name, "--repo", base, "--version", "0.1.0", fails=True)
        of_file = failure in ("pattern", "quarantine")
        path = "/demo-0.1.0.tgz" if of_file else "/index.yaml"
        if failure == "wrong name":
            # helm finds no such chart in an index that is there: larder is not asked for it.
            path = f"/{UNKNOWN}-0.1.0.tgz"
        carries = NOTHING if failure == "wrong name" else REASON
        command = f"helm pull {name} --repo {base} --version 0.1.0"
        return Said(command, output, base.removeprefix(case.listens_at) + path, carries)

    return f"helm {version}", say


# --- Images ------------------------------------------------------------------------------------------------------------


def skopeo(case):
    registry = Registry(case)
    case.serve(repositories(registry.url, "docker", "^app/single/"))
    version = run([tool("skopeo"), "--version"], cwd=case.home(), env=environment(case.home())).strip()
    host = case.listens_at.removeprefix("http://")

    def say(failure, repository):
        do = Containers(case.home(), insecure=[host])
        name = f"app/{UNKNOWN}" if failure == "wrong name" else "app/single"
        image = f"docker://{host}/{repository}/{name}:1.0"
        output = do.skopeo("copy", "-q", "--src-tls-verify=false", image, f"dir:{do.home}/image", fails=True)
        path = f"/v2/{repository}/{name}/manifests/1.0"
        if failure == "quarantine":
            manifest = json.loads(registry.tags["app/single", "1.0"][1])
            path = f"/v2/{repository}/{name}/blobs/{manifest['config']['digest']}"
        # Of a blob's answer skopeo 1.9 prints the status alone, and of a 5xx no body.
        carries = {"quarantine": STATUS, "upstream down": REASON}.get(failure, ("sentence",))
        return Said(f"skopeo copy {image} dir:image", output, path, carries)

    return version, say


# --- Linux distributions -----------------------------------------------------------------------------------------------


def dnf(case):
    with signer(case) as key:
        repository_of = pantry(case, key)
        public = key.public_key(armored=True)
    origin = case.origin()
    repository_of.publish(origin)
    case.serve(repositories(origin.url, "rpm", r"pantry-data-.*\.rpm"))
    version = run([tool("dnf"), "--version"], cwd=case.home(), env=environment(case.home())).splitlines()[0]

    def say(failure, repository):
        base = case.repository(repository)
        do = Dnf(case.home(), base, public)
        name = wanted(failure, "pantry-data")
        output = do("install", name, fails=True)
        of_file = failure in ("pattern", "quarantine")
        path = "/el9/Packages/pantry-data-1.0-1.noarch.rpm" if of_file else "/el9/repodata/repomd.xml"
        if failure == "wrong name":
            path = f"/el9/Packages/{UNKNOWN}.rpm"
        carries = NOTHING if failure == "wrong name" else STATUS
        command = f"dnf install {name} (with baseurl={base}/el9/)"
        return Said(command, output, base.removeprefix(case.listens_at) + path, carries)

    return f"dnf {version}", say


class Alpine:
    """An upstream with one package; what `Apk` needs of one."""

    def __init__(self, case):
        self.origin, self.publisher = case.origin(), Publisher(case.home())
        package = {"demo-1.0-r0.apk": self.publisher.made("demo", "1.0-r0", b"1.0\n")}
        self.origin.put(f"/{BRANCH}/{ARCH}/demo-1.0-r0.apk", package["demo-1.0-r0.apk"], immutable=True)
        index = self.publisher.index(package, "v1")
        self.origin.put(f"/{BRANCH}/{ARCH}/APKINDEX.tar.gz", index, "application/gzip")


def apk(case):
    upstream = Alpine(case)
    case.serve(repositories(upstream.origin.url, "alpine", r"demo-.*\.apk"))
    version = run([tool("apk"), "--version"], cwd=case.home(), env=environment(case.home())).partition(",")[0]

    def say(failure, repository):
        base = case.repository(repository)
        do = Apk(case.home(), upstream, base)
        name = wanted(failure, "demo")
        output = do("add", "--update-cache", name, fails=True)
        of_file = failure in ("pattern", "quarantine")
        path = f"/{BRANCH}/{ARCH}/" + ("demo-1.0-r0.apk" if of_file else "APKINDEX.tar.gz")
        if failure == "wrong name":
            path = f"/{BRANCH}/{ARCH}/{UNKNOWN}-1.0-r0.apk"
        carries = NOTHING if failure == "wrong name" else STATUS
        command = f"apk add --update-cache {name} (with {base}/{BRANCH} in /etc/apk/repositories)"
        return Said(command, output, base.removeprefix(case.listens_at) + path, carries)

    return version, say


NPM = ["install", "--no-audit", "--no-fund"]
CASES = {
    f"prints-{client}": prints(client, prepare)
    for client, prepare in {
        "pip": pip,
        "uv": uv,
        "npm": javascript("npm", NPM, ALL),
        "pnpm": javascript("pnpm", ["install", "--no-frozen-lockfile", "--store-dir=../pnpm-store", "--reporter=append-only"], REASON),
        "yarn": javascript("yarn4", ["install", "--no-immutable"], REASON),
        "bun": javascript("bun", ["install", "--no-progress"], STATUS),
        "helm": helm,
        "skopeo": skopeo,
        "dnf": dnf,
        "apk": apk,
    }.items()
}
