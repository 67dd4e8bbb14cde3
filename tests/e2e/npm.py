"""npm registries with npm 11 and 12, yarn 1, yarn 4, pnpm and bun: an install makes a lock file, then one is bound by it."""

import gzip
import json
import re
import shutil

import npm_packages
from harness import ask, environment, expect, expect_equal, run, tool
from npm_packages import ABBREVIATED, KEYS, PACKAGES

WANTED = {"@pantry/spoon": "^1.0.0", "pantry-jam": "^1.0.0"}
INSTALLED = "pantry-jam@1.1.0 pantry-jar@2.0.0 @pantry/spoon@1.0.0"


def serve(case, mutable_ttl=0, **settings):
    origin = case.origin()
    tarballs = npm_packages.serve(origin)
    cache = {"immutable_ttl": 0, "mutable_ttl": mutable_ttl}
    case.serve({"npm": {"base_url": origin.url, "type": "remote", "package": "npm", "cache": cache}}, **settings)
    return origin, tarballs


# pnpm hides pantry-jar from the application: it is looked for from where pantry-jam really lies.
RESOLVED = """
const fs = require("fs");
const beside = fs.realpathSync(require.resolve("pantry-jam"));
const jar = require(require.resolve("pantry-jar", {paths: [beside]}));
console.log(require("pantry-jam"), jar, require("@pantry/spoon"));
"""


class Project:
    """A directory with a package.json, and the settings of every client in it."""

    def __init__(self, home, registry, name="project"):
        self.home = home
        self.path = home / name
        self.path.mkdir()
        self.write(
            "package.json", json.dumps({"name": "app", "version": "1.0.0", "private": True, "dependencies": WANTED})
        )
        npmrc = [f"registry={registry}/", f"cache={home / 'npm-cache'}", "fetch-retries=0", "update-notifier=false"]
        self.write(".npmrc", "\n".join([*npmrc, ""]))
        self.write("bunfig.toml", f'[install]\nregistry = "{registry}/"\ncache = {{ dir = "{home / "bun-cache"}" }}\n')
        yarnrc = {
            "npmRegistryServer": registry,
            "unsafeHttpWhitelist": ["127.0.0.1"],
            "enableTelemetry": False,
            "nodeLinker": "node-modules",
            "enableGlobalCache": False,
            "httpRetry": 0,
            # The rule itself stays on; the fixtures' packages are old enough. It needs the packument's "time".
            "npmMinimalAgeGate": "1d",
        }
        self.write(".yarnrc.yml", json.dumps(yarnrc))
        self._environment = environment(
            home, npm_config_globalconfig="/dev/null", COREPACK_ENABLE_STRICT="0", NO_UPDATE_NOTIFIER="1"
        )

    def write(self, name, text):
        (self.path / name).write_text(text)

    def __call__(self, client, *arguments, **more):
        return run([tool(client), *arguments], cwd=self.path, env=self._environment, **more)

    def installed(self):
        """What is really there, as node resolves it."""
        code = RESOLVED
        return self("node", "-e", code).strip()

    def forget(self):
        """Drops what is installed and every cache."""
        for name in (self.path / "node_modules", self.path / ".yarn", *(self.home / name for name in CACHES)):
            shutil.rmtree(name, ignore_errors=True)


CACHES = ("npm-cache", "pnpm-store", "bun-cache", "yarn-cache", ".cache", ".yarn", ".local")


def client_case(client, install, frozen, lock_file):
    """A client's two ways to install, each with empty caches."""

    def use_client(case):
        serve(case)
        lock = {}

        def use(home, _):
            project = Project(home, case.repository("npm"))
            project(client, *install)
            expect_equal("installed", project.installed(), INSTALLED)
            text = (project.path / lock_file).read_text()
            check_lock(case, text)
            expect_equal(lock_file, text, lock.setdefault("text", text))
            project.forget()
            project(client, *frozen)
            expect_equal("installed from the lock file", project.installed(), INSTALLED)
            expect_equal(f"{lock_file} afterwards", (project.path / lock_file).read_text(), text)

        case.phases(use)

    return use_client


def newer_lock_case(client, install, frozen, lock_file):
    """A lock file that is newer than the packuments that larder holds, fresh: it was made where the new versions are known."""

    def use_client(case):
        origin, tarballs = serve(case, mutable_ttl=86_400)
        home = case.home()
        project = Project(home, case.repository("npm"))
        project(client, *install)
        text = (project.path / lock_file).read_text()
        if not case.direct:
            case.flush()
            npm_packages.serve(origin, npm_packages.BEFORE)
            for name in npm_packages.BEFORE:
                for accept in (ABBREVIATED, "application/json"):
                    held = ask(f"{case.repository('npm')}/{name.replace('/', '%2f')}", Accept=accept)
                    expect("2.0.0" not in held.body.decode(), f"{name} is not the packument of before")
        npm_packages.serve(origin)
        if not case.direct:
            # Bytes that nobody vouches for must not come in through the gap.
            link = npm_packages.tarball_path("pantry-jam", "1.1.0")
            origin.put(link, b"other bytes", immutable=True)
            ask(case.repository("npm") + link, wanted=502)
            origin.put(link, tarballs["pantry-jam@1.1.0"], immutable=True)
        project.forget()
        project(client, *frozen)
        expect_equal("installed from the lock file", project.installed(), INSTALLED)
        expect_equal(f"{lock_file} afterwards", (project.path / lock_file).read_text(), text)

    return use_client


def public_urls(addresses, refused=()):
    """npm 12 under several names of larder, where `public_url` is `addresses` (a function of larder's own URL): it takes no tarball
    under another name than its registry's."""

    def use_names(case):
        case.needs_larder()
        serve(case, **({"public_url": addresses} if addresses else {}))
        own = case.repository("npm")

        def use(home, _):
            for name in ("127.0.0.1", "localhost"):
                project = Project(home, own.replace("127.0.0.1", name), name)
                if name in refused:
                    said = project("npm12", "install", *QUIET, fails=True)
                    expect("EALLOWREMOTE" in said, f"npm 12 took a tarball under another name, or said:\n{said}")
                    continue
                project("npm12", "install", *QUIET)
                expect_equal(f"installed from {name}", project.installed(), INSTALLED)
                project.forget()
                project("npm12", "ci", *QUIET)
                expect_equal(f"installed from the lock file of {name}", project.installed(), INSTALLED)

        case.phases(use)

    return use_names


def named(url, host):
    return url.replace("127.0.0.1", host)


def check_lock(case, text):
    if not case.direct:
        elsewhere = [
            url
            for url in re.findall(r"https?://[^\"'#\s]+\.tgz", text)
            if not url.startswith(case.repository("npm") + "/")
        ]
        expect(not elsewhere, f"the lock file leads past larder: {elsewhere}")


# --- npm's other commands ------------------------------------------------------------------------------------------------


def npm_commands(case):
    """view, pack, dist-tag, outdated and an exact version, which read other documents than install does."""
    _, tarballs = serve(case)

    def use(home, _):
        project = Project(home, case.repository("npm"))
        registry = case.repository("npm")
        expect_equal(
            "dist-tags",
            json.loads(project("npm", "view", "pantry-jam", "dist-tags", "--json")),
            PACKAGES["pantry-jam"][1],
        )
        link = project("npm", "view", "@pantry/spoon@1.0.0", "dist.tarball").strip()
        expect_equal("dist.tarball", link, f"{registry}/@pantry/spoon/-/spoon-1.0.0.tgz")
        expect_equal(
            "times",
            json.loads(project("npm", "view", "pantry-jam", "time", "--json"))["1.1.0"],
            "2020-01-02T00:00:00.000Z",
        )
        project("npm", "pack", "--silent", "pantry-jar@2.0.0")
        expect(
            (project.path / "pantry-jar-2.0.0.tgz").read_bytes() == tarballs["pantry-jar@2.0.0"],
            "npm pack gave another tarball",
        )
        expect("next: 2.0.0-beta.1" in project("npm", "dist-tag", "ls", "pantry-jam"), "npm dist-tag ls lacks a tag")
        project("npm", "install", "--no-audit", "--no-fund", "pantry-jam@1.0.0", "@pantry/spoon")
        outdated = json.loads(project("npm", "outdated", "--json", fails=True).partition("\n\n")[0])
        expect_equal("outdated", {name: found["latest"] for name, found in outdated.items()}, {"pantry-jam": "1.1.0"})
        project("npm", "install", "--no-audit", "--no-fund", "pantry-jam@next")
        expect(
            "2.0.0-beta.1" in project("npm", "ls", "pantry-jam", "--depth=0"),
            "npm install pantry-jam@next gave another version",
        )

    case.phases(use)


def passed_through(case):
    """ping, search, keys and audit: answered by the upstream, each time."""
    origin, _ = serve(case)

    def use(home, phase):
        if phase not in ("cold", "warm"):
            return
        project = Project(home, case.repository("npm"))
        project("npm", "ping")
        found = json.loads(project("npm", "search", "--json", "jam"))
        expect_equal("npm search", [package["name"] for package in found], ["pantry-jam"])
        project("npm", "install", "--no-audit", "--no-fund")
        for _ in range(2):
            mark = origin.mark()
            report = json.loads(project("npm", "audit", "--json", fails=True).partition("\n\n")[0])
            expect(
                "pantry-jam" in report.get("vulnerabilities", {}), f"npm audit does not report the advisory:\n{report}"
            )
            posts = [request for request in origin.requests(mark) if request.method == "POST"]
            expect_equal("audit requests at the upstream", len(posts), 1)
            expect(
                "pantry-jam" in json.loads(gzip.decompress(posts[0].body)),
                "the audit body did not arrive as it was sent",
            )
        keys = json.loads(ask(case.repository("npm") + "/-/npm/v1/keys").body)
        expect_equal("signing keys", keys, KEYS)

    case.phases(use)


def packuments(case):
    """Both forms, every spelling of a scope, single versions: only `dist.tarball` may differ from the upstream's."""
    origin, _ = serve(case)
    case.needs_larder()
    base = case.repository("npm")

    def expected(document):
        return json.loads(document.replace(origin.url + "/", base + "/"))

    originals = {}
    for path in ("pantry-jam", "@pantry/spoon", "pantry-jam/1.0.0", "pantry-jam/next"):
        for accept in (ABBREVIATED, "application/json"):
            originals[path, accept] = expected(ask(f"{origin.url}/{path}", Accept=accept).body.decode())

    def use(_, phase):
        tags = {}
        for (path, accept), original in originals.items():
            spellings = [path] + [path.replace("/", slash) for slash in ("%2f", "%2F") if path.startswith("@")]
            for spelling in spellings:
                answer = ask(f"{base}/{spelling}", Accept=accept)
                expect_equal(f"{spelling} as {accept}", json.loads(answer.body), original)
                tags.setdefault((path, accept), set()).add(answer.headers["ETag"])
                if "/1" not in path and "/next" not in path:
                    expect_equal("type", answer.type, accept)
                    expect("accept" in answer.headers.get("Vary", "").lower(), "no Vary: Accept on a packument")
        for key, found in tags.items():
            expect_equal(f"number of ETags of {key}", len(found), 1)
        expect(
            tags["pantry-jam", ABBREVIATED] != tags["pantry-jam", "application/json"], "both forms have the same ETag"
        )
        if phase == "cold":
            ask(f"{base}/pantry-jam/-/pantry-jam-1.0.0.tgz")

    case.phases(use)


QUIET = ("--no-audit", "--no-fund", "--loglevel=error")

# Each client's name, its ways to install without and with a lock file, and that file.
CLIENTS = {
    "npm": (["install", *QUIET], ["ci", *QUIET], "package-lock.json"),
    "npm12": (["install", *QUIET], ["ci", *QUIET], "package-lock.json"),
    "yarn1": (
        ["install", "--non-interactive", "--cache-folder", "../yarn-cache"],
        ["install", "--non-interactive", "--frozen-lockfile", "--cache-folder", "../yarn-cache"],
        "yarn.lock",
    ),
    "yarn4": (["install", "--no-immutable"], ["install", "--immutable"], "yarn.lock"),
    "pnpm": (
        ["install", "--no-frozen-lockfile", "--store-dir=../pnpm-store"],
        ["install", "--frozen-lockfile", "--store-dir=../pnpm-store"],
        "pnpm-lock.yaml",
    ),
    "bun": (["install", "--no-progress"], ["install", "--frozen-lockfile", "--no-progress"], "bun.lock"),
}

CASES = {
    **{f"npm-{client}": client_case(client, *ways) for client, ways in CLIENTS.items()},
    **{f"npm-newer-lock-{client}": newer_lock_case(client, *ways) for client, ways in CLIENTS.items()},
    "npm-npm12-no-public-url": public_urls(None),
    "npm-npm12-one-public-url": public_urls(lambda own: named(own, "localhost"), refused=("127.0.0.1",)),
    "npm-npm12-two-public-urls": public_urls(lambda own: [named(own, "localhost"), own]),
    "npm-commands": npm_commands,
    "npm-passed-through": passed_through,
    "npm-packuments": packuments,
}
