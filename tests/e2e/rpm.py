"""RPM repositories: dnf and zypper, both checking the signatures of packages and of the master index."""

import hashlib
import re
import threading
import time

from gpg import signer
from harness import ROOT, Failed, ask, environment, expect, expect_equal, run, tool
from integrity import nothing, refuses
from rpm_packages import pantry

DNF_CONF = """[main]
reposdir={home}/repos
cachedir={home}/cache
persistdir={home}/persist
logdir={home}/log
pluginpath=/nonexistent
gpgcheck=1
install_weak_deps=0
tsflags=nodocs
"""

DNF_REPO = """[pantry]
name=pantry
{source}
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=file://{key}
metadata_expire=1
retries=1
"""


class Dnf:
    """dnf with a configuration, a cache and an installation root of its own."""

    def __init__(self, home, url, key, source="baseurl={}/el9/"):
        self._home = home
        self.root = home / "root"
        (home / "repos").mkdir()
        (self.root / "etc" / "dnf").mkdir(parents=True)
        (home / "dnf.conf").write_text(DNF_CONF.format(home=home))
        (home / "repos" / "pantry.repo").write_text(DNF_REPO.format(source=source.format(url), key=key))

    def repositories(self, text):
        """Takes this .repo file in place of the one that it was made with."""
        (self._home / "repos" / "pantry.repo").write_text(text)

    def __call__(self, *arguments, fails=False):
        options = ["-y", "-c", self._home / "dnf.conf", "--installroot", self.root, "--releasever", "9"]
        arguments = [tool("dnf"), *options, "--forcearch", "x86_64", *arguments]
        return run(arguments, cwd=self._home, env=environment(self._home), fails=fails)

    def installed(self, name):
        path = self.root / "opt" / name / "version"
        return path.read_text().strip() if path.exists() else None


class Zypper:
    """zypper with an installation root of its own, which holds its configuration and cache too."""

    def __init__(self, home, url, key):
        self._home = home
        self._environment = environment(home)
        self.root = home / "zypper"
        self.root.mkdir()
        for action in (["--initdb"], ["--import", key]):
            run([tool("rpm"), "--root", self.root, *action], cwd=home, env=self._environment)
        self("addrepo", "--refresh", "--gpgcheck-strict", f"{url}/el9", "pantry")

    def __call__(self, *arguments):
        options = ["--non-interactive", "--root", self.root, "--gpg-auto-import-keys"]
        return run([tool("zypper"), *options, *arguments], cwd=self._home, env=self._environment)

    def installed(self, name):
        path = self.root / "opt" / name / "version"
        return path.read_text().strip() if path.exists() else None


def serve(case, **more):
    """An upstream and larder before it; gives the upstream."""
    origin = case.origin()
    entry = {
        "base_url": origin.url,
        "type": "remote",
        "package": "rpm",
        "immutable_patterns": ["\\.rpm$"],
        "cache": {"immutable_ttl": 0, "mutable_ttl": 0},
        **more,
    }
    case.serve({"rpms": entry})
    return origin


def dnf(case):
    """makecache, query, install with a dependency, groups, advisories; then an upgrade after a new index."""
    with signer(case) as key:
        repository = pantry(case, key)
        public = key.public_key(armored=True)
        origin = serve(case)
        repository.publish(origin)

        def use(home, phase):
            do = Dnf(home, case.repository("rpms"), public)
            do("makecache")
            expect("pantry-data" in do("repoquery", "--requires", "pantry-jam"), "repoquery knows no dependency")
            do("install", "pantry-jam", "pantry-libstdc++")
            installed = {name: do.installed(name) for name in ("pantry-jam", "pantry-data", "pantry-libstdc++")}
            wanted = {"pantry-jam": "1.0", "pantry-data": "1.0", "pantry-libstdc++": "2.0~rc1^git1"}
            expect_equal("what dnf installed", installed, wanted)
            groups = do("group", "list", "--hidden")
            expect("pantry" in groups.lower(), f"dnf sees no group:\n{groups}")
            advisories = do("updateinfo", "list", "--all")
            expect("PANTRY-2026:0001" in advisories, f"dnf sees no advisory:\n{advisories}")

        case.phases(use)
        if not case.direct:
            origin.start()
        home = case.home()
        do = Dnf(home, case.repository("rpms"), public)
        do("install", "pantry-jam")
        repository.build("pantry-jam", "1.1", requires="pantry-data")
        repository.index()
        repository.publish(origin)
        # The client's own copy of the index is good for a second.
        time.sleep(2)
        do("upgrade")
        expect_equal("after the upgrade", do.installed("pantry-jam"), "1.1")


def zypper(case):
    """addrepo, refresh, install; and what zypper probes for and does not find must be a plain 404."""
    with signer(case) as key:
        repository = pantry(case, key)
        public = key.public_key(armored=True)
        origin = serve(case)
        repository.publish(origin)

        def use(home, phase):
            do = Zypper(home, case.repository("rpms"), public)
            do("refresh", "--force")
            do("install", "--no-recommends", "pantry-jam", "pantry-libstdc++")
            expect_equal("what zypper installed", do.installed("pantry-jam"), "1.0")
            expect_equal("what zypper installed", do.installed("pantry-libstdc++"), "2.0~rc1^git1")
            if not case.direct and phase in ("cold", "warm"):
                for probe in ("media.1/media", "repodata/repomd.xml.key"):
                    ask(f"{case.repository('rpms')}/el9/{probe}", wanted=404)

        case.phases(use)


def compressions(case):
    """Metadata in bzip2 and xz, and metadata whose names carry no digest; packages built anew under their old names.

    rpm_16: a package is held to what the metadata says of it, in whichever compression.
    """
    with signer(case) as key:
        public = key.public_key(armored=True)
        origin = serve(case)
        variants = (("bz2", "--unique-md-filenames"), ("xz", "--unique-md-filenames"), ("gz", "--simple-md-filenames"))
        for compression, names in variants:
            repository = pantry(case, key, compression=compression, names=names)
            repository.publish(origin)
            do = Dnf(case.home(), case.repository("rpms"), public)
            if not case.direct:
                do("makecache")
                path = "el9/Packages/pantry-data-1.0-1.noarch.rpm"
                right = repository.files("el9/")[path][0]
                refuses(origin, f"/{path}", f"{case.repository('rpms')}/{path}", right, nothing)
            do("install", "pantry-jam")
            expect_equal(f"installed with {compression} {names}", do.installed("pantry-jam"), "1.0")


def past_larder(case):
    """Packages that the metadata places elsewhere: dnf goes there, and larder says so once for each generation."""
    case.needs_larder()
    with signer(case) as key:
        origin = serve(case)
        repository = pantry(case, key, more=["--baseurl", f"{origin.url}/elsewhere/"])
        public = key.public_key(armored=True)
        for _ in range(2):
            repository.touch()
            repository.index()
            repository.publish(origin)
            repository.publish(origin, "/elsewhere/")
            do = Dnf(case.home(), case.repository("rpms"), public)
            do("install", "pantry-jam")
            do("makecache", "--refresh")
            expect_equal("installed", do.installed("pantry-jam"), "1.0")
            # A generation that is being read goes on being served for half a second.
            time.sleep(1)
        expect(origin.requests(), "the upstream was asked for nothing")
        packages = {request.path for request in origin.requests() if request.path.endswith(".rpm")}
        expect(all(path.startswith("/elsewhere/") for path in packages) and packages, f"packages came from {packages}")
        said = [(line["level"], line["repository"], line["document"][-14:]) for line in case.log_lines("xml:base")]
        expect_equal("lines of the log", said, [("WARN", "rpms", "primary.xml.gz")] * 2)


def listings(case):
    """dnf by metalink and by mirrorlist: larder is the only mirror they name."""
    case.needs_larder()
    with signer(case) as key:
        repository = pantry(case, key)
        public = key.public_key(armored=True)
        origin = serve(case)
        repository.publish(origin)
        base = case.repository("rpms")
        for name in ("metalink", "mirrorlist"):
            source = f"{name}={{}}/el9/{name}?repo=pantry&arch=x86_64"
            do = Dnf(case.home(), base, public, source)
            do("install", "pantry-jam")
            expect_equal(f"installed by {name}", do.installed("pantry-jam"), "1.0")
        metalink = ask(f"{base}/el9/metalink?repo=pantry&countme=1").body.decode()
        served = ask(f"{base}/el9/repodata/repomd.xml").body
        expect(hashlib.sha256(served).hexdigest() in metalink, f"the metalink has another hash:\n{metalink}")
        urls = re.findall(r"<url[^>]*>([^<]*)</url>", metalink)
        expect_equal("the metalink's mirrors", urls, [f"{base}/el9/repodata/repomd.xml"])


def guide(case):
    """The .repo files of docs/guide/rpm.md, as they stand there but for the host, the remote's name and its root."""
    case.needs_larder()
    text = (ROOT / "docs" / "guide" / "rpm.md").read_text()
    blocks = re.findall(r"```ini\n(.*?)```", text, re.DOTALL)
    for_dnf, for_zypper = [block for block in blocks if block.startswith("[baseos]")]
    with signer(case) as key:
        repository = pantry(case, key)
        origin = serve(case, immutable_patterns=["\\.rpm$", "RPM-GPG-KEY[^/]*$"])
        repository.publish(origin, "/9/BaseOS/x86_64/os/")
        public = key.public_key(armored=True)
        origin.put("/RPM-GPG-KEY-AlmaLinux-9", public.read_bytes())

        def here(block):
            ours = block.replace("https://artifacts.example.com", case.listens_at)
            return ours.replace("/remote/almalinux/", "/remote/rpms/")

        do = Dnf(case.home(), case.repository("rpms"), public)
        do.repositories(here(for_dnf))
        do("install", "pantry-jam")
        expect_equal("installed by dnf", do.installed("pantry-jam"), "1.0")
        home = case.home()
        do = Zypper(home, case.repository("rpms"), public)
        do("removerepo", "pantry")
        (do.root / "etc" / "zypp" / "repos.d" / "baseos.repo").write_text(here(for_zypper))
        do("refresh")
        do("install", "--no-recommends", "pantry-jam")
        expect_equal("installed by zypper", do.installed("pantry-jam"), "1.0")


def republished(case):
    """The repository is published anew every second, old metadata deleted at once, and no client sees an error."""
    case.needs_larder()
    with signer(case) as key:
        repository = pantry(case, key)
        public = key.public_key(armored=True)
        origin = serve(case, cache={"immutable_ttl": 0, "mutable_ttl": 1})
        repository.publish(origin)
        done = threading.Event()
        wrong = []

        def publish():
            while not done.wait(1):
                repository.touch()
                repository.index()
                repository.publish(origin)

        def load():
            while not done.is_set():
                try:
                    read_generation(case.repository("rpms") + "/el9")
                except (Failed, OSError) as failure:
                    wrong.append(str(failure))

        workers = [threading.Thread(target=work) for work in (publish, load, load)]
        for worker in workers:
            worker.start()
        try:
            client = case.home()
            do = Dnf(client, case.repository("rpms"), public)
            end = time.monotonic() + 15
            rounds = 0
            while time.monotonic() < end:
                do("makecache", "--refresh")
                rounds += 1
            do("install", "--refresh", "pantry-jam")
        finally:
            done.set()
            for worker in workers:
                worker.join()
        expect(not wrong, f"{len(wrong)} requests went wrong, the first:\n{wrong[0] if wrong else ''}")
        expect(rounds >= 3, f"dnf came round only {rounds} times")
        generations = {request.path for request in origin.requests() if "-primary.xml" in request.path}
        expect(len(generations) >= 5, f"only {len(generations)} generations passed through larder")


def read_generation(base):
    """What a client reads: the master index and all that it names, each with the digest stated."""
    master = ask(f"{base}/repodata/repomd.xml").body
    pattern = rb'<data type="([a-z_]+)">\s*<checksum type="sha256">([0-9a-f]+)</checksum>.*?<location href="([^"]+)"'
    records = re.findall(pattern, master, re.DOTALL)
    expect(len(records) >= 4, "the master index names too little")
    for kind, digest, href in records:
        if kind == b"other":
            continue
        body = ask(f"{base}/{href.decode()}").body
        expect_equal(f"digest of {href.decode()}", hashlib.sha256(body).hexdigest(), digest.decode())


CASES = {
    "rpm-dnf": dnf,
    "rpm-zypper": zypper,
    "rpm-compressions": compressions,
    "rpm-past-larder": past_larder,
    "rpm-listings": listings,
    "rpm-guide": guide,
    "rpm-republished": republished,
}
