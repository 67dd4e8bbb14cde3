"""The lines that a repository's root page shows, each taken from the page and run by the client that it is for.

Words in capitals are the user's to replace: so they are here. Nothing else is changed, and nothing else tells a client where larder is.
"""

import json
import re

import npm_packages
from alpine import Upstream as Alpine
from alpine_packages import ARCH, BRANCH, KEY
from generic import Apt, debian_repository
from gpg import signer
from harness import TOOLS, ask, environment, expect, expect_equal, run, tool
from helm import chart
from npm import INSTALLED, RESOLVED, WANTED
from oci import MIRRORED, Containers
from oci_images import Registry
from origin import Resource
from pypi_packages import serve_json
from rpm import Dnf
from rpm_packages import pantry

CACHE = {"immutable_ttl": 0, "mutable_ttl": 0}
SECTION = re.compile(r"^(\S.*?) \((.*)\):\n\n((?:    .*\n|\n)+)", re.MULTILINE)


class Page:
    """The lines of a repository's root page, by client and place."""

    def __init__(self, case, name):
        case.needs_larder()
        text = ask(f"{case.repository(name)}/").body.decode()
        found = [(client, place, re.sub("(?m)^    ", "", body).strip()) for client, place, body in SECTION.findall(text)]
        self._lines = {}
        for client, place, body in found:
            self._lines.setdefault((client, place.partition(",")[0].partition(";")[0]), body)
        self._unused = set(self._lines)

    def __call__(self, client, place, **words):
        expect((client, place) in self._lines, f"the page has no lines for {client} ({place}), but for {sorted(self._lines)}")
        self._unused.discard((client, place))
        text = self._lines[client, place]
        for word, instead in words.items():
            word = word.replace("_", "-")
            text, count = re.subn(rf"(?<![A-Z-]){word}(?![A-Z-])", lambda _: str(instead), text)
            expect(count, f"the lines for {client} ({place}) have no {word}:\n{text}")
        return text

    def without(self, *lines):
        """These are not run here, and all others have been."""
        expect_equal("lines of the page that were not run", self._unused, set(lines))


class Shell:
    """A shell with a home of its own. `names` says which program answers to which name."""

    def __init__(self, home, names=(), **more):
        self.home, self.path = home, home / "work"
        self.path.mkdir()
        (home / "bin").mkdir()
        for name, program in dict(names).items():
            # Some of them look for their own parts beside themselves: no link.
            (home / "bin" / name).write_text(f'#!/bin/sh\nexec {tool(program)} "$@"\n')
            (home / "bin" / name).chmod(0o755)
        self._environment = environment(home, **more)
        self._environment["PATH"] = f"{home / 'bin'}:{self._environment['PATH']}"

    def __call__(self, text, **more):
        return run(["sh", "-euc", text], cwd=self.path, env=self._environment, **more)


# --- Python ------------------------------------------------------------------------------------------------------------


def pypi(case):
    index, files = case.origin("index"), case.origin("files")
    serve_json(index, files)
    entry = {"base_url": files.url, "index_url": f"{index.url}/simple", "package": "pypi", "cache": CACHE}
    case.serve({"pypi": entry})
    page = Page(case, "pypi")
    pip = Shell(case.home(), PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_RETRIES="0")
    pip(page("pip", "in a shell"))
    pip("pip download --no-cache-dir -d got pantry-demo")
    expect((pip.path / "got" / "pantry_demo-1.1-py3-none-any.whl").exists(), "pip download gave another file")
    quiet = {"UV_NO_CACHE": "1", "UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": str(TOOLS / "py" / "bin" / "python")}
    uv = Shell(case.home(), **quiet)
    uv(page("uv", "in a shell") + "\nuv pip install --no-deps --target site pantry-demo")
    expect((uv.path / "site" / "pantry_demo").is_dir() or list((uv.path / "site").glob("pantry_demo*")), "uv installed nothing")
    project = Shell(case.home(), **quiet)
    head = '[project]\nname = "app"\nversion = "1.0.0"\nrequires-python = ">=3.9"\ndependencies = ["pantry-demo"]\n\n'
    (project.path / "pyproject.toml").write_text(head + page("uv", "pyproject.toml") + "\n")
    project("uv lock")
    expect(f"{case.repository('pypi')}/simple" in (project.path / "uv.lock").read_text(), "uv.lock leads past larder")
    project("uv sync")
    expect("/simple/" in page("poetry", "in a shell"), "poetry has no index")
    page.without()


# --- JavaScript --------------------------------------------------------------------------------------------------------


def npm(case):
    npm_packages.serve(case.origin())
    case.serve({"npm": {"base_url": case.origins()[0].url, "package": "npm", "cache": CACHE}})
    page = Page(case, "npm")
    frozen = "--store-dir=../pnpm-store"
    for names, lines, install in (
        ({}, ("npm", "in a shell"), "npm install --no-audit --no-fund"),
        ({"npm": "npm12"}, ("npm", "in a shell"), "npm install --no-audit --no-fund"),
        ({}, ("npm, pnpm", ".npmrc"), "npm install --no-audit --no-fund"),
        ({}, ("pnpm", "in a shell"), f"pnpm install {frozen}"),
        ({}, ("npm, pnpm", ".npmrc"), f"pnpm install {frozen}"),
        ({"yarn": "yarn1"}, ("yarn 1", "in a shell"), "yarn install --non-interactive --cache-folder ../yarn-cache"),
        ({"yarn": "yarn4"}, ("yarn 4", "in a shell"), "yarn install --no-immutable"),
        ({}, ("bun", "bunfig.toml"), "bun install --no-progress"),
    ):
        yarn = {"YARN_NODE_LINKER": "node-modules", "YARN_ENABLE_GLOBAL_CACHE": "false", "YARN_ENABLE_TELEMETRY": "false"}
        # pnpm leaves this setting to npm, and looks for it beside node, where the pinned one is not.
        more = {"yarn 4": yarn, "pnpm": {"npm_config_npm_path": tool("npm")}}.get(lines[0], {})
        shell = Shell(case.home(), names, NO_UPDATE_NOTIFIER="1", **more)
        package = {"name": "app", "version": "1.0.0", "private": True, "dependencies": WANTED}
        (shell.path / "package.json").write_text(json.dumps(package))
        if lines[1] == "in a shell":
            if lines[0] == "yarn 4":
                (shell.path / "yarn.lock").touch()
            shell(page(*lines))
        else:
            (shell.path / lines[1]).write_text(page(*lines) + "\n")
        shell(install)
        (shell.path / "look.cjs").write_text(RESOLVED)
        expect_equal(f"what {lines} installed", shell("node look.cjs").strip(), INSTALLED)
    page.without()


# --- Helm --------------------------------------------------------------------------------------------------------------


def helm(case):
    origin = case.origin()
    body = chart("demo", "0.1.0")
    origin.put("/charts/demo-0.1.0.tgz", body, "application/gzip", immutable=True)
    entry = "  demo:\n  - name: demo\n    version: 0.1.0\n    apiVersion: v2\n    urls: [demo-0.1.0.tgz]\n"
    origin.put("/charts/index.yaml", f"apiVersion: v1\nentries:\n{entry}", "text/yaml")
    case.serve({"charts": {"base_url": f"{origin.url}/charts", "package": "helm", "cache": CACHE}})
    page = Page(case, "charts")
    for program in ("helm4", "helm3"):
        shell = Shell(case.home(), {"helm": program})
        shell(page("helm", "in a shell", CHART="demo"))
        expect((shell.path / "demo-0.1.0.tgz").read_bytes() == body, f"{program} pulled another chart")
        above = "apiVersion: v2\nname: above\nversion: 1.0.0\ndependencies:\n- name: demo\n  version: 0.1.0\n  "
        (shell.path / "above").mkdir()
        (shell.path / "above" / "Chart.yaml").write_text(above + page("helm", "Chart.yaml") + "\n")
        shell("helm dependency update above")
        expect((shell.path / "above" / "charts" / "demo-0.1.0.tgz").read_bytes() == body, f"{program} has no dependency")
    page.without()


# --- containers --------------------------------------------------------------------------------------------------------


def docker(case):
    registry = Registry(case)
    case.serve({"images": {"base_url": registry.url, "package": "docker", "cache": CACHE}})
    page = Page(case, "images")
    pulled = Containers(case.home())
    inspect = page("skopeo", "in a shell", IMAGE="app/single", TAG="1.0").split()
    seen = json.loads(pulled.skopeo(*inspect[1:]))
    expect_equal("digest", seen["Digest"], registry.digest("app/single"))
    pull = page("podman", "in a shell", IMAGE="app/single", TAG="1.0").split()
    pulled("podman", *pull[1:], "--signature-policy", pulled.home / "policy.json")
    mirrored = Containers(case.home())
    mirror = ("podman, skopeo, as a mirror", "/etc/containers/registries.conf.d/larder.conf")
    settings = page(*mirror, REGISTRY=MIRRORED)
    # Below the user's own directory they are read as below /etc.
    (mirrored.home / ".config/containers/registries.conf.d").mkdir(parents=True)
    (mirrored.home / ".config/containers/registries.conf.d/larder.conf").write_text(settings + "\n")
    # Lists of tags are the registry's own, whatever mirrors there are.
    seen = json.loads(mirrored.skopeo("inspect", "--no-tags", f"docker://{MIRRORED}/app/single:1.0"))
    expect_equal("digest through the mirror", seen["Digest"], registry.digest("app/single"))
    # The same name that podman has; and containerd's own cases are in oci_containerd.py.
    expect_equal("docker's image", page("docker", "in a shell").split()[-1], page("podman", "in a shell").split()[-1])
    page.without(("containerd, as a mirror", "/etc/containerd/certs.d/REGISTRY/hosts.toml"))


# --- distributions -----------------------------------------------------------------------------------------------------


def rpm(case):
    origin = case.origin()
    case.serve({"rpms": {"base_url": origin.url, "package": "rpm", "cache": CACHE}})
    page = Page(case, "rpms")
    with signer(case) as key:
        public = key.public_key(armored=True)
        pantry(case, key).publish(origin)
        do = Dnf(case.home(), "", public)
        do.repositories(page("dnf, yum", "/etc/yum.repos.d/larder.repo", FOLDER="el9", FILE_OR_ADDRESS_OF_THE_KEY=f"file://{public}"))
        do("install", "pantry-jam")
        expect_equal("what dnf installed", do.installed("pantry-jam"), "1.0")
        home = case.home()
        (home / "root").mkdir()
        zypper = f"zypper --non-interactive --root {home / 'root'} --gpg-auto-import-keys"
        shell = Shell(home)
        shell(f"rpm --root {home / 'root'} --initdb; rpm --root {home / 'root'} --import {public}")
        shell(page("zypper", "in a shell", FOLDER="el9").replace("zypper", zypper, 1))
        shell(f"{zypper} install pantry-jam")
        expect_equal("what zypper installed", (home / "root/opt/pantry-jam/version").read_text().strip(), "1.0")
    page.without()


def alpine(case):
    upstream = Alpine(case)
    upstream.origin.put(f"/v3.23/community/{ARCH}/APKINDEX.tar.gz", upstream.publisher.index({}, "none"))
    case.serve({"alpine": {"base_url": upstream.origin.url, "package": "alpine", "cache": CACHE}})
    page = Page(case, "alpine")
    # The list of an Alpine system as it is installed, with a mirror that has Alpine below a folder, and the command that leads it to larder.
    usual = f"https://mirror.example.com/alpine/{BRANCH}\nhttp://mirror.example.com/pub/alpine/v3.23/community\n"
    written = page("apk", "/etc/apk/repositories", VERSION="3.23")
    shell = Shell(case.home())
    (shell.path / "repositories").write_text(usual)
    shell(page("apk", "in a shell").replace("/etc/apk/repositories", "repositories"))
    expect_equal("what sed made of the list", (shell.path / "repositories").read_text().strip(), written)
    home = case.home()
    keys = home / "root/etc/apk/keys"
    keys.mkdir(parents=True)
    (keys / KEY).write_bytes(upstream.publisher.public_key.read_bytes())
    (home / "root/etc/apk/repositories").write_text(written + "\n")
    apk = [tool("apk"), "--root", home / "root", "--arch", ARCH, "--no-progress"]
    run([*apk, "add", "--initdb", "demo"], cwd=home, env=environment(home))
    expect_equal("what apk installed", (home / "root/usr/share/demo/version").read_bytes(), b"1.0\n")
    page.without()


# --- files -------------------------------------------------------------------------------------------------------------


def generic(case):
    origin = case.origin()
    origin.put("/dir/tool.bin", b"a tool\n", immutable=True)
    with signer(case) as key:
        repository = debian_repository(case, key)
        keyring = key.public_key(armored=True)
    for path in sorted(repository.rglob("*")):
        if path.is_file():
            origin.put("/" + str(path.relative_to(repository)), path.read_bytes())
    # There is no folder to show at the upstream's root.
    origin.answer("/", lambda _: Resource(b"no\n", "text/plain", status=404))
    case.serve({"files": {"base_url": origin.url, "package": "generic"}})
    page = Page(case, "files")
    for client in ("curl", "wget"):
        shell = Shell(case.home())
        shell(page(client, "in a shell", PATH="dir/tool.bin"))
        expect_equal(f"what {client} fetched", (shell.path / "tool.bin").read_bytes(), b"a tool\n")
    home = case.home()
    apt = Apt(home, "", keyring)
    line = page("apt", "/etc/apt/sources.list.d/larder.list", KEYRING=keyring, SUITE="stable", COMPONENT="main")
    (home / "sources.list").write_text(line + "\n")
    apt("apt-get", "update")
    apt("apt-get", "download", "pantry-jam")
    expect((home / "pantry-jam_1.0_amd64.deb").exists(), "apt-get download gave no file")
    page.without()


CASES = {
    "roots-pypi": pypi,
    "roots-npm": npm,
    "roots-helm": helm,
    "roots-docker": docker,
    "roots-rpm": rpm,
    "roots-alpine": alpine,
    "roots-generic": generic,
}
