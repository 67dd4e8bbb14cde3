"""Alpine repositories with apk 3: indexes of both versions, signatures checked, programs installed and run."""

import os
from concurrent.futures import ThreadPoolExecutor

from alpine_packages import ARCH, BRANCH, KEY, Publisher, real_packages
from archives import noise
from harness import ask, environment, expect, expect_equal, run, tool
from integrity import cuts, refuses
from origin import Resource

CACHE = {"immutable_ttl": 0, "mutable_ttl": 0}
# Names with every letter that the grammar has (a `+` twice, `~` and `_` in versions).
ODD = {
    "libstdc++": ("13.2.1_git20240309-r0", ()),
    "gtk+3.0": ("3.24.49~3c1f0a2-r0", ("libstdc++",)),
    "g++": ("14.2.0-r4", ("libstdc++",)),
}


class Upstream:
    """A mirror with one branch of version 2 and one of version 3."""

    def __init__(self, case):
        self.origin = case.origin()
        self.publisher = Publisher(case.home())
        self.packages = real_packages(self.publisher)
        for name, (version, depends) in ODD.items():
            self.packages[f"{name}-{version}.apk"] = self.publisher.made(name, version, b"odd\n", depends=depends)
        self.packages["bulky-1.0-r0.apk"] = self.publisher.made("bulky", "1.0-r0", noise(3_000_000, "bulky"))
        self.packages["demo-1.0-r0.apk"] = self.publisher.made("demo", "1.0-r0", b"1.0\n")
        self.packages["plain-1.0-r0.apk"] = self.publisher.made("plain", "1.0-r0", b"1.0\n", arch="noarch")
        for name, body in self.packages.items():
            self.put(name, body)
        # apk takes a package's folder from its own architecture.
        self.origin.put(f"/{BRANCH}/noarch/plain-1.0-r0.apk", self.packages["plain-1.0-r0.apk"], immutable=True)
        self.publish()
        packages, index = self.publisher.v3("third", "1.0-r0", b"third\n")
        self.origin.put(f"/v3/{ARCH}/Packages.adb", index)
        for name, body in packages.items():
            self.origin.put(f"/v3/{ARCH}/{name}", body, immutable=True)

    def put(self, name, body):
        self.origin.put(f"/{BRANCH}/{ARCH}/{name}", body, immutable=True)

    def publish(self, **headers):
        index = self.publisher.index(self.packages, f"v{len(self.packages)}")
        self.origin.put(f"/{BRANCH}/{ARCH}/APKINDEX.tar.gz", index, "application/gzip", **headers)
        return index


def serve(case, upstream, **more):
    entry = {"base_url": upstream.origin.url, "type": "remote", "package": "alpine"}
    entry |= {"immutable_patterns": [f"/({ARCH}|noarch)/.*\\.apk$"], "cache": CACHE}
    case.serve({"alpine": entry | more})
    return case.repository("alpine")


class Apk:
    """apk with a fresh root file system."""

    def __init__(self, home, upstream, base):
        self.root = home / "root"
        keys = self.root / "etc/apk/keys"
        keys.mkdir(parents=True)
        (keys / KEY).write_bytes(upstream.publisher.public_key.read_bytes())
        self._home = home
        self.repositories(f"{base}/{BRANCH}")
        self("add", "--initdb")

    def repositories(self, *lines):
        (self.root / "etc/apk/repositories").write_text("".join(f"{line}\n" for line in lines))

    def __call__(self, *arguments, fails=False):
        user = [] if os.geteuid() == 0 else ["--usermode"]
        fixed = ["--root", self.root, "--arch", ARCH, *user, "--no-progress", "--timeout", "20"]
        return run([tool("apk"), *fixed, *arguments], cwd=self._home, env=environment(self._home), fails=fails)

    def version_of(self, name):
        return (self.root / "usr/share" / name / "version").read_bytes()

    def runs(self, program, *arguments):
        """What an installed program prints, run with the loader and the libraries that were installed with it."""
        loader = self.root / f"lib/ld-musl-{ARCH}.so.1"
        libraries = f"{self.root}/lib:{self.root}/usr/lib"
        command = [loader, "--library-path", libraries, self.root / program, *arguments]
        return run(command, cwd=self._home, env=environment(self._home))


def apk_01_version_2(case):
    """apk_01, apk_02, apk_10: a branch as Alpine's own are, with only larder to ask."""
    upstream = Upstream(case)
    base = serve(case, upstream)

    def use(home, _):
        apk = Apk(home, upstream, base)
        apk("update")
        expect("curl-" in apk("search", "--exact", "curl"), "apk search did not find curl")
        apk("add", "curl", "gtk+3.0", "g++", "bulky", "demo", "plain")
        expect(apk.runs("usr/bin/curl", "--version").startswith("curl 8."), "the installed curl does not run")
        expect_equal("the file of libstdc++", apk.version_of("libstdc++"), b"odd\n")
        apk("info", "--installed", "curl", "libcurl", "musl", "libstdc++", "gtk+3.0", "g++", "plain")
        apk("fetch", "--quiet", "--output", home, "zlib")
        apk("verify", "--keys-dir", apk.root / "etc/apk/keys", *home.glob("zlib-*.apk"))

    case.phases(use)


def apk_15_version_3(case):
    """apk_15: an index of apk 3, as a repository and by its own URL."""
    upstream = Upstream(case)
    base = serve(case, upstream)

    def use(home, _):
        apk = Apk(home, upstream, base)
        for line in (f"v3 {base}/v3", f"ndx {base}/v3/{ARCH}/Packages.adb"):
            apk.repositories(line)
            apk("update")
            apk("add", "third")
            expect_equal("the file of third", apk.version_of("third"), b"third\n")
            apk("del", "third")

    case.phases(use)


def unsigned(case):
    """The signature check is the client's own, and goes on working: without the key nothing is trusted."""
    upstream = Upstream(case)
    base = serve(case, upstream)
    apk = Apk(case.home(), upstream, base)
    (apk.root / "etc/apk/keys" / KEY).unlink()
    expect("UNTRUSTED" in apk("update", fails=True), "apk trusted an index whose key it has not")


def apk_09_refreshed(case):
    """apk_09: a new index is seen, and brings its package; what is held is not asked for again."""
    upstream = Upstream(case)
    base = serve(case, upstream)
    case.needs_larder()
    apk = Apk(case.home(), upstream, base)
    apk("update")
    apk("add", "demo", "libstdc++")
    body = upstream.publisher.made("demo", "1.1-r0", b"1.1\n")
    upstream.packages["demo-1.1-r0.apk"] = body
    upstream.put("demo-1.1-r0.apk", body)
    upstream.publish()
    mark = upstream.origin.mark()
    apk("update")
    apk("upgrade", "--available")
    expect_equal("the file of demo after the upgrade", apk.version_of("demo"), b"1.1\n")
    asked = [request.path.rpartition("/")[2] for request in upstream.origin.requests(mark) if request.immutable]
    expect_equal("packages asked of the upstream", asked, ["demo-1.1-r0.apk"])


def apk_04_labelled(case):
    """apk_04, apk_08: labels and dates that servers get wrong do not reach apk, which would stumble over them."""
    upstream = Upstream(case)
    index = upstream.publish(Content_Encoding="gzip")
    base = serve(case, upstream)
    case.needs_larder()

    def use(home, _):
        answer = ask(f"{base}/{BRANCH}/{ARCH}/APKINDEX.tar.gz")
        expect_equal("the index's bytes", answer.body, index)
        expect_equal("the label of the index", answer.headers["Content-Encoding"], None)
        apk = Apk(home, upstream, base)
        apk("update")
        apk("add", "demo")

    case.phases(use)


def apk_12_integrity(case):
    """apk_12: a package that is not what the index says is refused and not kept, whichever is asked for first."""
    upstream = Upstream(case)
    base = serve(case, upstream)
    case.needs_larder()
    place = f"{BRANCH}/{ARCH}"

    def nothing():
        pass

    def index():
        ask(f"{base}/{place}/APKINDEX.tar.gz")

    for name, learn in (("demo-1.0-r0.apk", nothing), ("g++-14.2.0-r4.apk", index)):
        refuses(upstream.origin, f"/{place}/{name}", f"{base}/{place}/{name}", upstream.packages[name], learn)
    name = "plain-1.0-r0.apk"
    path = f"{BRANCH}/noarch/{name}"
    refuses(upstream.origin, f"/{path}", f"{base}/{path}", upstream.packages[name], index)
    for arch in (ARCH, "noarch"):
        packages, third = upstream.publisher.v3("third", "1.1-r0", noise(5_000, arch), arch=arch)
        [(name, right)] = packages.items()
        upstream.origin.put(f"/{arch}-3/{ARCH}/Packages.adb", third)
        path = f"{arch}-3/{arch}/{name}"
        learn = nothing if arch == ARCH else lambda: ask(f"{base}/noarch-3/{ARCH}/Packages.adb")
        refuses(upstream.origin, f"/{path}", f"{base}/{path}", right, learn)
    name = "bulky-1.0-r0.apk"
    cuts(case, upstream.origin, f"/{place}/{name}", f"{base}/{place}/{name}", upstream.packages[name])


def wrong_size(case):
    """An index whose sizes are off by a few bytes, while the hashes are right: apk installs, and larder says so."""
    upstream = Upstream(case)
    index = upstream.publisher.index(upstream.packages, "off", off=("demo", "bulky"))
    upstream.origin.put(f"/{BRANCH}/{ARCH}/APKINDEX.tar.gz", index, "application/gzip")
    base = serve(case, upstream)

    def use(home, _):
        apk = Apk(home, upstream, base)
        apk("update")
        apk("add", "demo", "bulky", "plain")
        expect_equal("the file of demo", apk.version_of("demo"), b"1.0\n")

    case.phases(use)
    if not case.direct:
        # Once for the repository: which of the two comes first is apk's choice.
        said = [(line["level"], line["repository"]) for line in case.log_lines("another size")]
        expect_equal("lines of the log", said, [("WARN", "alpine")])


def past_larder(case):
    """An index of version 3 that names a whole URL for its packages: apk goes there, and larder says so once for each index."""
    upstream = Upstream(case)
    base = serve(case, upstream)
    case.needs_larder()
    for version in ("1.1-r0", "1.2-r0"):
        rule = upstream.origin.url + "/elsewhere/${name}-${version}.apk"
        packages, index = upstream.publisher.v3("third", version, b"third\n", index_with=["--pkgname-spec", rule])
        upstream.origin.put(f"/v3/{ARCH}/Packages.adb", index)
        for name, body in packages.items():
            upstream.origin.put(f"/elsewhere/{name}", body)
        apk = Apk(case.home(), upstream, base)
        apk.repositories(f"v3 {base}/v3")
        for _ in range(3):
            apk("update")
        apk("add", "third")
        expect_equal("the file of third", apk.version_of("third"), b"third\n")
        ask(f"{base}/v3/{ARCH}/third-{version}.apk", wanted=404)
    said = [(line["level"], line["repository"], line["document"]) for line in case.log_lines("pkgname-spec")]
    expect_equal("lines of the log", said, [("WARN", "alpine", f"v3/{ARCH}/Packages.adb")] * 2)


def replaced(case):
    """An upstream that replaces a package under its name: the new index drops the copy that it no longer means."""
    upstream = Upstream(case)
    base = serve(case, upstream)
    case.needs_larder()
    apk = Apk(case.home(), upstream, base)
    apk("update")
    apk("add", "demo")
    upstream.packages["demo-1.0-r0.apk"] = upstream.publisher.made("demo", "1.0-r0", b"again\n")
    upstream.put("demo-1.0-r0.apk", upstream.packages["demo-1.0-r0.apk"])
    upstream.publish()
    other = Apk(case.home(), upstream, base)
    other("update")
    other("add", "demo")
    expect_equal("the file of the replaced demo", other.version_of("demo"), b"again\n")


def mirrors(case):
    """Two mirrors: the first sends a wrong package, then a broken one, then is gone. apk notices nothing."""
    upstream = Upstream(case)
    second = case.origin("second")
    second.mirror(upstream.origin)
    base = serve(case, upstream, base_url=[upstream.origin.url, second.url])
    case.needs_larder()
    upstream.put("demo-1.0-r0.apk", noise(len(upstream.packages["demo-1.0-r0.apk"]), "wrong"))
    upstream.origin.answer(f"/{BRANCH}/{ARCH}/g++-14.2.0-r4.apk", lambda _: Resource(b"busy\n", "text/plain", status=503))
    apk = Apk(case.home(), upstream, base)
    apk("update")
    apk("add", "demo", "g++", "libstdc++")
    expect_equal("the file of demo", apk.version_of("demo"), b"1.0\n")
    expect(second.requests(), "the second mirror was asked for nothing")
    upstream.origin.stop()
    other = Apk(case.home(), upstream, base)
    other("update")
    other("add", "demo", "bulky", "curl", "g++")
    expect(other.runs("usr/bin/curl", "--version").startswith("curl 8."), "the installed curl does not run")
    metrics = ask(f"{case.listens_at}/metrics").body.decode()
    healthy = f'larder_mirror_healthy{{repository="alpine",mirror="{second.url}/"}} 1'
    expect(healthy in metrics, f"{healthy} is not in the metrics")


def apk_13_gone(case):
    """apk_13: a package that its mirror has taken back is a 404, and the index is read once more to learn of it."""
    upstream = Upstream(case)
    base = serve(case, upstream)
    case.needs_larder()
    apk = Apk(case.home(), upstream, base)
    apk("update")
    name = "demo-1.0-r0.apk"
    del upstream.packages[name]
    upstream.origin.answer(f"/{BRANCH}/{ARCH}/{name}", lambda _: None)
    upstream.publish()
    mark = upstream.origin.mark()
    ask(f"{base}/{BRANCH}/{ARCH}/{name}", wanted=404)
    indexes = [request for request in upstream.origin.requests(mark) if request.path.endswith("APKINDEX.tar.gz")]
    expect_equal("index requests", len(indexes), 1)


def apk_22_crowd(case):
    """apk_22: a hundred containers start at once."""
    upstream = Upstream(case)
    base = serve(case, upstream, cache={"immutable_ttl": 0, "mutable_ttl": 60})
    case.needs_larder()
    roots = [Apk(case.home(), upstream, base) for _ in range(100)]
    with ThreadPoolExecutor(100) as pool:
        list(pool.map(lambda apk: apk("update"), roots))
    indexes = [request for request in upstream.origin.requests() if request.path.endswith("APKINDEX.tar.gz")]
    expect_equal("index requests", len(indexes), 1)


CASES = {
    "alpine-v2": apk_01_version_2,
    "alpine-v3": apk_15_version_3,
    "alpine-unsigned": unsigned,
    "alpine-refreshed": apk_09_refreshed,
    "alpine-labelled": apk_04_labelled,
    "alpine-integrity": apk_12_integrity,
    "alpine-wrong-size": wrong_size,
    "alpine-past-larder": past_larder,
    "alpine-replaced": replaced,
    "alpine-mirrors": mirrors,
    "alpine-gone": apk_13_gone,
    "alpine-crowd": apk_22_crowd,
}
