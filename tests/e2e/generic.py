"""Generic remotes with curl, apt and cargo (sparse registry)."""

import gzip
import hashlib
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

from archives import noise, tar_gz
from gpg import signer
from harness import ask, environment, expect, expect_equal, run, tool

BIG = noise(5 * 1024 * 1024 + 17, "big")
SMALL = b"the contents of a small file\n" * 40


# --- curl ------------------------------------------------------------------------------------------------------------


class Curl:
    """curl, with the answer's head at hand."""

    def __init__(self, home):
        self.home = home
        self._environment = environment(home)

    def __call__(self, url, *options):
        """(status, headers in lower case, body) of one request."""
        body, head = self.home / "body", self.home / "head"
        body.write_bytes(b"")
        command = [tool("curl"), "-sS", "--max-time", "60", "-D", head, "-o", body, "-w", "%{http_code}", *options, url]
        status = int(run(command, cwd=self.home, env=self._environment))
        lines = head.read_text().strip().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        return status, headers, body.read_bytes()

    def download(self, url, path, *options):
        run(
            [tool("curl"), "-sS", "-f", "--max-time", "60", "-o", path, *options, url],
            cwd=self.home,
            env=self._environment,
        )
        return Path(path).read_bytes()


def curl(case):
    """Whole files, ranges, resumed downloads, HEAD, conditions, redirects; then 403 for what no pattern admits."""
    origin = case.origin()
    origin.put("/releases/v1/tool.tar.gz", BIG, "application/gzip", immutable=True)
    origin.put("/releases/v1/resumed.bin", BIG[::-1], immutable=True)
    origin.put("/releases/v1/ranged first+plus.bin", SMALL, immutable=True)
    origin.put("/latest.txt", "v1\n", "text/plain")
    origin.put("/objects/moved.bin", SMALL[::-1], immutable=True)
    origin.redirect("/releases/v1/moved.bin", "/objects/moved.bin")
    case.serve(
        {
            "files": {
                "base_url": origin.url,
                "type": "remote",
                "package": "generic",
                "immutable_patterns": ["^releases/"],
                "mutable_patterns": ["^latest\\.txt$"],
                "cache": {"immutable_ttl": 0, "mutable_ttl": 0},
            }
        }
    )

    def use(home, phase):
        get, base = Curl(home), case.repository("files")
        whole_file(case, get, base, phase)
        ranges(get, f"{base}/releases/v1/ranged%20first+plus.bin")
        resumed(get, f"{base}/releases/v1/resumed.bin", home)
        expect_equal(
            "a redirected file", get.download(f"{base}/releases/v1/moved.bin", home / "moved", "-L"), SMALL[::-1]
        )
        expect_equal("a mutable file", get(f"{base}/latest.txt")[2], b"v1\n")
        if not case.direct:
            at_rest = origin.mark()
            expect_equal("status of a path that no pattern admits", get(f"{base}/secret.txt")[0], 403)
            expect_equal("upstream requests for it", origin.requests(at_rest), [])

    case.phases(use)


def whole_file(case, get, base, phase):
    url = f"{base}/releases/v1/tool.tar.gz"
    status, headers, body = get(url)
    expect_equal("status", status, 200)
    expect(body == BIG, "the body differs from the upstream's")
    expect_equal("content-length", headers.get("content-length"), str(len(BIG)))
    expect_equal("content-type", headers.get("content-type"), "application/gzip")
    if not case.direct:
        expect_equal("x-artifact-source", headers.get("x-artifact-source"), "remote" if phase == "cold" else "cache")
        expect("cache-status" in headers, "no Cache-Status")
    status, head, _ = get(url, "-I")
    expect_equal("status of HEAD", (status, head.get("content-length")), (200, str(len(BIG))))
    tag = head.get("etag")
    expect(tag, "no ETag on a file that is held")
    expect_equal("status with its own ETag", get(url, "-H", f"If-None-Match: {tag}")[0], 304)
    expect_equal("status with its own date", get(url, "-z", head["last-modified"])[0], 304)
    expect_equal("status with another ETag", get(url, "-H", 'If-None-Match: "other"')[0], 200)


def ranges(get, url):
    """Every shape of range; on a cold cache the first of them makes larder fetch the whole file."""
    size = len(SMALL)
    for asked, first, last in (
        ("100-199", 100, 199),
        ("-50", size - 50, size - 1),
        ("900-", 900, size - 1),
        ("0-0", 0, 0),
    ):
        status, headers, body = get(url, "-r", asked)
        expect_equal(f"status of range {asked}", status, 206)
        expect_equal(f"content-range of {asked}", headers.get("content-range"), f"bytes {first}-{last}/{size}")
        expect(body == SMALL[first : last + 1], f"wrong bytes for range {asked}")
    status, headers, body = get(url, "-r", f"{size}-")
    expect_equal("a range behind the end", status in (200, 416), True)


def multiple_ranges(case):
    """Two ranges in one request give multipart/byteranges."""
    origin = case.origin()
    origin.put("/f.bin", SMALL, immutable=True)
    case.serve({"files": {"base_url": origin.url, "type": "remote", "package": "generic"}})
    case.needs_larder()

    def use(home, _):
        status, headers, body = Curl(home)(case.repository("files") + "/f.bin", "-r", "0-9,500-519")
        expect_equal("status", status, 206)
        kind = headers.get("content-type", "")
        expect(kind.startswith("multipart/byteranges; boundary="), f"content-type is {kind!r}")
        for part, text in ((SMALL[0:10], "0-9"), (SMALL[500:520], "500-519")):
            expect(f"bytes {text}/{len(SMALL)}".encode() in body, f"no part with Content-Range {text}")
            expect(part in body, f"no part with the bytes {text}")

    case.phases(use, revalidates=False)


def resumed(get, url, home):
    """`curl -C -` goes on where a cut download stopped."""
    wanted, path = BIG[::-1], home / "resumed.bin"
    path.write_bytes(wanted[:1_000_003])
    expect(get.download(url, path, "-C", "-") == wanted, "the resumed file differs from the upstream's")


def coalesced(case):
    """Sixteen curls at once for one cold file: one download at the upstream, every body right."""
    origin = case.origin()
    origin.put("/f.bin", BIG, immutable=True)
    case.serve({"files": {"base_url": origin.url, "type": "remote", "package": "generic"}})

    def use(home, _):
        command = [tool("curl"), "-sS", "-f", "--max-time", "60", case.repository("files") + "/f.bin"]
        started = [
            subprocess.Popen([*command, "-o", str(home / f"f{number}")], env=environment(home)) for number in range(16)
        ]
        codes = [process.wait(timeout=90) for process in started]
        expect_equal("exit codes", set(codes), {0})
        for number in range(16):
            expect((home / f"f{number}").read_bytes() == BIG, f"client {number} got a wrong body")

    case.phases(use, revalidates=False)


def foreign_names(case):
    """`curl -OJ`: the file gets the name that the upstream gives it, in whichever octets that came."""
    origin = case.origin()
    # http.server sends fields as Latin-1: so these are the UTF-8 octets of the names themselves.
    raw = {"utf-8": "资料 v1.zip".encode().decode("latin-1"), "latin-1": "caf\xe9.zip"}
    for number, name in enumerate(raw.values()):
        disposition = f'attachment; filename="{name}"'
        origin.put(f"/{number}", SMALL, immutable=True, Content_Disposition=disposition)
    case.serve({"files": {"base_url": origin.url, "type": "remote", "package": "generic"}})

    def use(home, _):
        for number, name in enumerate(raw.values()):
            folder = home / f"saved-{number}"
            folder.mkdir()
            url = f"{case.repository('files')}/{number}"
            run([tool("curl"), "-sS", "-f", "--max-time", "60", "-OJ", url], cwd=folder, env=environment(home))
            saved = [os.fsencode(entry.name) for entry in folder.iterdir()]
            expect_equal("the file's name", saved, [name.encode("latin-1")])
            expect(next(folder.iterdir()).read_bytes() == SMALL, "the body differs from the upstream's")

    case.phases(use, revalidates=False)


def checked_each_time(case):
    """`mutable_ttl: 0`: each request, however soon after the one before, sees what the upstream has at that moment."""
    origin = case.origin()
    cache = {"mutable_ttl": 0}
    entry = {"base_url": origin.url, "type": "remote", "package": "generic", "mutable_patterns": ["^latest$"]}
    case.serve({"files": {**entry, "cache": cache}})
    case.needs_larder()
    for number in range(20):
        origin.put("/latest", f"version {number}\n", "text/plain")
        expect_equal("answer", ask(case.repository("files") + "/latest").body, f"version {number}\n".encode())


# --- apt -------------------------------------------------------------------------------------------------------------


def apt(case):
    """A signed Debian repository: update, update again (nothing new), policy, download."""
    tool("apt-get")
    origin = case.origin()
    with signer(case) as key:
        repository = debian_repository(case, key)
        trusted = key.public_key(armored=True)
    for path in sorted(repository.rglob("*")):
        if path.is_file():
            name = "/" + str(path.relative_to(repository))
            origin.put(name, path.read_bytes(), immutable="/by-hash/" in name or name.startswith("/pool/"))
    case.serve(
        {
            "debian": {
                "base_url": origin.url,
                "type": "remote",
                "package": "generic",
                "immutable_patterns": ["^pool/", "/by-hash/"],
                "mutable_patterns": [
                    "^dists/[^/]+/(InRelease|Release|Release\\.gpg)$",
                    "/(Packages|Sources)(\\.[gx]z)?$",
                ],
                "cache": {"immutable_ttl": 0, "mutable_ttl": 0},
            }
        }
    )
    deb = (repository / "pool" / "pantry-jam_1.0_amd64.deb").read_bytes()

    def use(home, _):
        do = Apt(home, case.repository("debian"), trusted)
        expect("Get:" in do("apt-get", "update"), "apt-get update fetched nothing")
        again = do("apt-get", "update")
        expect("Hit:" in again and "Get:" not in again, f"the second apt-get update fetched again:\n{again}")
        policy = do("apt-cache", "policy", "pantry-jam")
        expect("Candidate: 1.0" in policy, f"apt-cache policy does not offer the package:\n{policy}")
        do("apt-get", "download", "pantry-jam")
        expect((home / "pantry-jam_1.0_amd64.deb").read_bytes() == deb, "the downloaded package differs")

    case.phases(use)


def apt_flat(suite, spelling):
    """A flat repository (`deb URL ./`, `deb URL /`): apt asks for `./Packages`, and for `./x.deb` where the index says so."""

    def use_apt(case):
        tool("apt-get")
        origin = case.origin()
        with signer(case) as key:
            repository = flat_repository(case, key, spelling)
            trusted = key.public_key(armored=True)
        for path in sorted(repository.iterdir()):
            origin.put(f"/{path.name}", path.read_bytes(), immutable=path.suffix == ".deb")
        # An upstream that folds as file servers do: the outcome without larder is the one to reach.
        plain = origin.respond
        origin.respond = lambda request: plain(replace(request, path=folded(request.path)))
        case.serve(
            {
                "flat": {
                    "base_url": origin.url,
                    "type": "remote",
                    "package": "generic",
                    "immutable_patterns": ["^[^/]+\\.deb$"],
                    "mutable_patterns": ["^(InRelease|Release|Release\\.gpg|Packages(\\.[gx]z)?)$"],
                    "cache": {"immutable_ttl": 0, "mutable_ttl": 0},
                }
            }
        )
        deb = (repository / "pantry-jam_1.0_amd64.deb").read_bytes()

        def use(home, _):
            mark = origin.mark()
            do = Apt(home, case.repository("flat"), trusted, suite)
            expect("Get:" in do("apt-get", "update"), "apt-get update fetched nothing")
            again = do("apt-get", "update")
            expect("Hit:" in again and "Get:" not in again, f"the second apt-get update fetched again:\n{again}")
            do("apt-get", "download", "pantry-jam")
            expect((home / "pantry-jam_1.0_amd64.deb").read_bytes() == deb, "the downloaded package differs")
            asked = [request.target for request in origin.requests(mark)]
            odd = [target for target in asked if "/./" in target or "//" in target]
            expect(case.direct or not odd, f"the upstream was asked for {odd}")

        case.phases(use)

    return use_apt


def folded(path):
    """A path without empty and `.` segments."""
    return "/" + "/".join(segment for segment in path.split("/") if segment not in ("", "."))


class Apt:
    """apt in a root of its own: nothing of the host's apt is read or changed."""

    def __init__(self, home, url, key, suite="stable main"):
        self._home = home
        for name in ("lists/partial", "cache/archives/partial", "empty"):
            (home / name).mkdir(parents=True)
        (home / "status").touch()
        (home / "sources.list").write_text(f"deb [signed-by={key} arch=amd64] {url} {suite}\n")
        settings = {
            # Read before the host's own apt.conf and apt.conf.d, and leads away from them.
            "Dir::Etc::Main": home / "empty" / "apt.conf",
            "Dir::Etc::Parts": home / "empty",
            "Dir::Etc::SourceList": home / "sources.list",
            "Dir::Etc::SourceParts": home / "empty",
            "Dir::State": home,
            "Dir::State::Lists": home / "lists",
            "Dir::State::Status": home / "status",
            "Dir::Cache": home / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "0",
            "Acquire::http::Proxy": "DIRECT",
            "Acquire::http::Timeout": "30",
        }
        (home / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        self._environment = environment(home, APT_CONFIG=str(home / "apt.conf"))

    def __call__(self, program, *arguments):
        return run([tool(program), *arguments], cwd=self._home, env=self._environment)


def debian_repository(case, key):
    """A directory with one package, an index with by-hash names, and a signed InRelease."""
    home, root = case.home(), case.directory / "debian"
    index = root / "dists" / "stable" / "main" / "binary-amd64"
    (root / "pool").mkdir(parents=True)
    index.mkdir(parents=True)
    clean = environment(home)
    debian_package(home, root / "pool")
    packages = run([tool("apt-ftparchive"), "packages", "pool"], cwd=root, env=clean).encode()
    for name, content in (("Packages", packages), ("Packages.gz", gzip.compress(packages, mtime=0))):
        (index / name).write_bytes(content)
        by_hash = index / "by-hash" / "SHA256"
        by_hash.mkdir(parents=True, exist_ok=True)
        (by_hash / hashlib.sha256(content).hexdigest()).write_bytes(content)
    release = {
        "Suite": "stable",
        "Codename": "stable",
        "Components": "main",
        "Architectures": "amd64",
        "Acquire-By-Hash": "yes",
    }
    options = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in release.items()]
    text = run([tool("apt-ftparchive"), *options, "release", "dists/stable"], cwd=root, env=clean)
    (root / "dists" / "stable" / "InRelease").write_text(key.clearsign(text))
    return root


def debian_package(home, directory):
    """Builds pantry-jam 1.0 into a directory."""
    package = home / "package"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "usr/share/pantry-jam").mkdir(parents=True)
    fields = (
        "Package: pantry-jam",
        "Version: 1.0",
        "Architecture: amd64",
        "Maintainer: tester <tester@example.com>",
        "Description: a test",
    )
    (package / "DEBIAN" / "control").write_text("\n".join(fields) + "\n")
    (package / "usr/share/pantry-jam/jar").write_bytes(noise(100_000, "deb"))
    target = directory / "pantry-jam_1.0_amd64.deb"
    run([tool("dpkg-deb"), "--build", "--root-owner-group", package, target], cwd=home, env=environment(home))


def flat_repository(case, key, spelling):
    """Package, index and signed InRelease in one directory; the index spells the package's path with `spelling` in front."""
    home, root = case.home(), case.directory / "flat"
    root.mkdir()
    clean = environment(home)
    debian_package(home, root)
    packages = run([tool("apt-ftparchive"), "packages", "."], cwd=root, env=clean)
    fields = [line for line in packages.splitlines() if not line.startswith("Filename: ")]
    place = fields.index("Version: 1.0") + 1
    fields.insert(place, f"Filename: {spelling}pantry-jam_1.0_amd64.deb")
    packages = ("\n".join(fields) + "\n").encode()
    (root / "Packages").write_bytes(packages)
    (root / "Packages.gz").write_bytes(gzip.compress(packages, mtime=0))
    text = run([tool("apt-ftparchive"), "release", "."], cwd=root, env=clean)
    (root / "InRelease").write_text(key.clearsign(text))
    return root


# --- cargo -----------------------------------------------------------------------------------------------------------


def cargo(case):
    """A sparse registry: resolve, download, build and run; then again from the lock file."""
    origin = case.origin()
    case.serve(
        {
            "crates": {
                "base_url": origin.url,
                "type": "remote",
                "package": "generic",
                "immutable_patterns": ["^crates/.*\\.crate$"],
                "mutable_patterns": ["^index/"],
                "cache": {"immutable_ttl": 0, "mutable_ttl": 0},
            }
        }
    )
    base = case.repository("crates")
    crate_registry(origin, base)
    lock = {}

    def use(home, phase):
        do = Cargo(home, base, lock.get("text"))
        printed = do("run", "--quiet", *(["--locked"] if lock else []))
        expect_equal("the built program's output", printed.strip(), "jam 1.1.0")
        lock.setdefault("text", (home / "app" / "Cargo.lock").read_text())
        # Once more without the lock file, with what cargo has kept: conditional requests.
        (home / "app" / "Cargo.lock").unlink()
        do("fetch", "--quiet")
        expect_equal("the lock file", (home / "app" / "Cargo.lock").read_text(), lock["text"])

    case.phases(use)


class Cargo:
    """cargo with a home of its own and an application that needs one crate of the registry."""

    def __init__(self, home, base, lock):
        self._app = home / "app"
        (self._app / "src").mkdir(parents=True)
        (self._app / ".cargo").mkdir()
        manifest = crate_manifest("app", "0.1.0") + 'dependencies.pantry-jam = { version = "1", registry = "pantry" }\n'
        (self._app / "Cargo.toml").write_text(manifest)
        (self._app / "src" / "main.rs").write_text('fn main() { println!("jam {}", pantry_jam::version()) }\n')
        (self._app / ".cargo" / "config.toml").write_text(f'[registries.pantry]\nindex = "sparse+{base}/index/"\n')
        if lock:
            (self._app / "Cargo.lock").write_text(lock)
        more = {"CARGO_HOME": str(home / "cargo"), "CARGO_NET_RETRY": "0", "CARGO_HTTP_TIMEOUT": "30"}
        # rustup's cargo looks for the toolchain below HOME unless it is told where that is.
        rustup = Path(os.environ.get("RUSTUP_HOME") or Path.home() / ".rustup")
        if rustup.is_dir():
            more["RUSTUP_HOME"] = str(rustup)
        self._environment = environment(home, **more)

    def __call__(self, *arguments):
        return run([tool("cargo"), *arguments], cwd=self._app, env=self._environment)


def crate_manifest(name, version):
    return f'package = {{ name = "{name}", version = "{version}", edition = "2021" }}\n'


def crate_registry(origin, base):
    """The index and the crates. `dl` is where clients download from: larder, which keeps a generic file's bytes."""
    lines = []
    for version in ("1.0.0", "1.1.0"):
        root = f"pantry-jam-{version}"
        crate = tar_gz(
            {
                f"{root}/Cargo.toml": crate_manifest("pantry-jam", version),
                f"{root}/src/lib.rs": 'pub fn version() -> &\'static str { env!("CARGO_PKG_VERSION") }\n',
                f"{root}/ballast": noise(1_500_000, version),
            }
        )
        origin.put(f"/crates/pantry-jam/{version}.crate", crate, immutable=True)
        checksum = hashlib.sha256(crate).hexdigest()
        lines.append(
            json.dumps(
                {"name": "pantry-jam", "vers": version, "deps": [], "cksum": checksum, "features": {}, "yanked": False}
            )
        )
    origin.put("/index/pa/nt/pantry-jam", "\n".join(lines) + "\n", "text/plain")
    origin.put(
        "/index/config.json", json.dumps({"dl": f"{base}/crates/{{crate}}/{{version}}.crate"}), "application/json"
    )


CASES = {
    "generic-curl": curl,
    "generic-multiple-ranges": multiple_ranges,
    "generic-coalesced": coalesced,
    "generic-foreign-names": foreign_names,
    "generic-checked-each-time": checked_each_time,
    "generic-apt": apt,
    "generic-apt-flat-dot": apt_flat("./", "./"),
    "generic-apt-flat-dot-plain": apt_flat("./", ""),
    "generic-apt-flat-slash": apt_flat("/", "./"),
    "generic-apt-flat-slash-plain": apt_flat("/", ""),
    "generic-cargo": cargo,
}
