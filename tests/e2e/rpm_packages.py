"""Signed RPMs and the signed repository they are published in: made with rpmbuild, rpmsign and createrepo_c."""

import os
import shutil
import time

from harness import environment, run, tool

KEY_NAME = "tester@example.com"

SPEC = """Name: {name}
Version: {version}
Release: 1
Summary: Test package {name}
License: MIT
BuildArch: {arch}
{requires}
%description
Test package {name} {version}.
%install
mkdir -p %{{buildroot}}/opt/{name}
echo {version} > %{{buildroot}}/opt/{name}/version
head -c {ballast} /dev/urandom > %{{buildroot}}/opt/{name}/ballast
%files
/opt/{name}
"""

COMPS = """<?xml version="1.0" encoding="UTF-8"?>
<comps><group><id>pantry</id><name>Pantry</name><description>a test</description><default>true</default>
<uservisible>true</uservisible><packagelist><packagereq type="mandatory">pantry-jam</packagereq></packagelist></group>
</comps>
"""

UPDATEINFO = """<?xml version="1.0" encoding="UTF-8"?>
<updates><update from="tester@example.com" status="final" type="security" version="1"><id>PANTRY-2026:0001</id>
<title>pantry-jam</title><issued date="2026-01-01 00:00:00"/><severity>Important</severity>
<description>a test</description><pkglist><collection short="P"><name>P</name>
<package name="pantry-jam" version="1.1" release="1" epoch="0" arch="x86_64">
<filename>pantry-jam-1.1-1.x86_64.rpm</filename></package></collection></pkglist></update></updates>
"""


class RpmRepository:
    """A repository on disk below `root`, and the same at an origin below `/el9/`."""

    def __init__(self, case, key, *, compression="gz", names="--unique-md-filenames", more=()):
        self._home = case.home()
        self._key = key
        self._options = [names, f"--general-compress-type={compression}", *more]
        # gpg's agent is reached through a socket in its home: rpmsign must use the same one.
        self._environment = environment(self._home, GNUPGHOME=str(key.home), GPG_TTY="")
        self.root = self._home / "el9"
        (self.root / "Packages").mkdir(parents=True)
        for name, text in (("comps.xml", COMPS), ("updateinfo.xml", UPDATEINFO)):
            (self._home / name).write_text(text)

    def build(self, name, version, arch="x86_64", requires="", ballast=1000):
        """Builds and signs a package. `+`, `~` and `^` in names and versions are what this format is known for."""
        top = self._home / "rpmbuild"
        top.mkdir(exist_ok=True)
        spec = top / f"{name}.spec"
        requires = f"Requires: {requires}" if requires else ""
        spec.write_text(SPEC.format(name=name, version=version, arch=arch, requires=requires, ballast=ballast))
        defines = {
            "_topdir": top,
            "_rpmdir": self.root,
            "_build_name_fmt": "Packages/%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm",
            "_binary_payload": "w1.gzdio",
            "debug_package": "%{nil}",
            "_dbpath": top / "db",
        }
        self._run("rpmbuild", "-bb", "--quiet", "--target", arch, *_defines(defines), spec)
        package = self.root / "Packages" / f"{name}-{version}-1.{arch}.rpm"
        self._run("rpmsign", *_defines({"_gpg_name": KEY_NAME, "__gpg": tool("gpg")}), "--addsign", package)
        return package

    def index(self):
        """Writes `repodata/` anew, its master index signed; what was there before is gone."""
        shutil.rmtree(self.root / "repodata", ignore_errors=True)
        self._run("createrepo_c", "--quiet", "--no-database", *self._options, "-g", self._home / "comps.xml", self.root)
        self._run("modifyrepo_c", self._options[0], self._home / "updateinfo.xml", self.root / "repodata")
        self._key.detach_sign(self.root / "repodata" / "repomd.xml")

    def touch(self):
        """Changes what the next index says without changing a package: the files' times are part of it."""
        self._time = getattr(self, "_time", int(time.time())) + 1
        for package in (self.root / "Packages").iterdir():
            os.utime(package, (self._time, self._time))

    def files(self, at):
        """Path at the origin to bytes and whether the file never changes."""
        return {
            f"{at}{path.relative_to(self.root)}": (path.read_bytes(), _is_immutable(path))
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }

    def publish(self, origin, at="/el9/"):
        """Puts all files at the origin in place of those before, at one instant."""
        origin.replace(at, self.files(at))

    def _run(self, program, *arguments):
        return run([tool(program), *arguments], cwd=self._home, env=self._environment)


def _is_immutable(path):
    """Packages, and metadata whose names begin with their SHA-256."""
    digest = path.name.split("-", 1)[0]
    return path.suffix == ".rpm" or len(digest) == 64


def _defines(values):
    return [argument for name, value in values.items() for argument in ("--define", f"{name} {value}")]


def pantry(case, key, **options):
    """Three packages with a dependency between two of them, and a name with `+` and a version with `~` and `^`."""
    repository = RpmRepository(case, key, **options)
    repository.build("pantry-data", "1.0", "noarch")
    repository.build("pantry-jam", "1.0", requires="pantry-data")
    repository.build("pantry-libstdc++", "2.0~rc1^git1", ballast=3_000_000)
    repository.index()
    return repository
