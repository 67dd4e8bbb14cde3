"""Alpine repositories: packages and indexes of both versions, signed with a key of our own.

Some packages are the real ones of the Alpine system that apk comes with, made anew out of their installed files, so that
what is installed runs. The indexes are made by apk itself: what they say of a package is not our own arithmetic.
"""

import gzip
import hashlib
import io
import os
import re
import stat
import tarfile

from harness import TOOLS, environment, expect, run, tool

BRANCH = "v3.23/main"
ARCH = "x86_64"
KEY = "test.rsa.pub"
BUILT = 1704164646
# curl and everything that it needs.
REAL = (
    "brotli-libs c-ares ca-certificates-bundle curl libcrypto3 libcurl libidn2 libpsl libssl3 libunistring musl"
    " nghttp2-libs zlib zstd-libs"
).split()
# A field of the database of installed packages, and its name in .PKGINFO.
FIELDS = {"P": "pkgname", "V": "pkgver", "A": "arch", "T": "pkgdesc", "U": "url", "L": "license", "I": "size"}
LISTS = {"D": "depend", "p": "provides"}


def member(files, *, cut):
    """One gzip member with a tar of (TarInfo, content); `cut` leaves out the blocks that end an archive."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in files:
            archive.addfile(info, io.BytesIO(content) if content is not None else None)
        length = archive.offset
    body = plain.getvalue()[:length] if cut else plain.getvalue()
    return gzip.compress(body, compresslevel=6, mtime=0)


def entry(name, content=b"", mode=0o644):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, BUILT
    info.uname = info.gname = "root"
    return info


class Publisher:
    """A signing key, and what it signs."""

    def __init__(self, home):
        self._home = home
        self.key, self.public_key = home / "test.rsa", home / KEY
        self._do("openssl", "genrsa", "-out", self.key, "2048")
        self._do("openssl", "rsa", "-in", self.key, "-pubout", "-out", self.public_key)

    def _do(self, program, *arguments):
        return run([tool(program), *arguments], cwd=self._home, env=environment(self._home))

    def signed(self, body):
        """`body` behind a member with its signature."""
        (self._home / "plain").write_bytes(body)
        signature = self._home / "signature"
        self._do("openssl", "dgst", "-sha256", "-sign", self.key, "-out", signature, self._home / "plain")
        content = signature.read_bytes()
        return member([(entry(f".SIGN.RSA256.{KEY}", content), content)], cut=True) + body

    def package(self, fields, files):
        """A package: `fields` are those of .PKGINFO, `files` are (TarInfo, content or None)."""
        for info, content in files:
            of = content if info.isreg() else info.linkname.encode() if info.issym() else None
            if of is not None:
                info.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(of).hexdigest()}
        data = member(files, cut=False)
        lines = [*fields, ("builddate", str(BUILT)), ("datahash", hashlib.sha256(data).hexdigest())]
        about = "".join(f"{name} = {value}\n" for name, value in lines).encode()
        return self.signed(member([(entry(".PKGINFO", about), about)], cut=True)) + data

    def made(self, name, version, content, *, arch=ARCH, depends=()):
        """A package with one file, /usr/share/NAME/version."""
        fields = [("pkgname", name), ("pkgver", version), ("arch", arch), ("pkgdesc", name), ("license", "MIT")]
        fields += [("size", str(len(content))), *(("depend", needed) for needed in depends)]
        folders = ("usr", "usr/share", f"usr/share/{name}")
        path = f"usr/share/{name}/version"
        return self.package(fields, [*map(folder, folders), (entry(path, content), content)])

    def index(self, packages, description, *, off=()):
        """An APKINDEX.tar.gz of {file name: package}; it states a wrong size of the packages named in `off`."""
        shelf = self._shelf(packages)
        unsigned = shelf / "unsigned"
        arguments = ["index", "--quiet", "--allow-untrusted", "--description", description, "--output", unsigned]
        self._do("apk", *arguments, *(shelf / name for name in packages))
        if not off:
            return self.signed(unsigned.read_bytes())
        text = gzip.decompress(unsigned.read_bytes())
        for name in off:
            # As long as before: the archive's own numbers stay.
            text, count = re.subn(
                rf"(\nP:{re.escape(name)}\nV:[^\n]*\nA:[^\n]*\nS:\d*)(\d)\n".encode(),
                lambda found: found[1] + str((int(found[2]) + 3) % 10).encode() + b"\n",
                text,
            )
            expect(count == 1, f"{name} has no size in the index")
        return self.signed(gzip.compress(text, mtime=0))

    def v3(self, name, version, content, *, arch=ARCH, index_with=()):
        """A package and an index of version 3: ({file name: package}, Packages.adb)."""
        shelf = self._shelf({})
        tree = shelf / "tree" / "usr" / "share" / name
        tree.mkdir(parents=True)
        (tree / "version").write_bytes(content)
        file = shelf / f"{name}-{version}.apk"
        fields = {"name": name, "version": version, "arch": arch, "description": name, "license": "MIT"}
        about = [part for field, value in fields.items() for part in ("-I", f"{field}:{value}")]
        signing = ["--sign-key", self.key]
        self._do("apk", "mkpkg", "--quiet", *about, "-F", shelf / "tree", *signing, "-o", file)
        index = shelf / "Packages.adb"
        self._do("apk", "mkndx", "--quiet", "--keys-dir", self._home, *signing, *index_with, "-o", index, file)
        return {file.name: file.read_bytes()}, index.read_bytes()

    def _shelf(self, packages):
        shelf = self._home / f"shelf{len(list(self._home.glob('shelf*')))}"
        shelf.mkdir()
        for name, body in packages.items():
            (shelf / name).write_bytes(body)
        return shelf


def folder(path):
    info = entry(path, mode=0o755)
    info.type = tarfile.DIRTYPE
    return info, None


def real_packages(publisher):
    """{file name: package} of the real packages, out of the Alpine system that apk came with."""
    root = TOOLS / "alpine"
    database = (root / "lib/apk/db/installed").read_text()
    made = {}
    for record in database.split("\n\n"):
        lines = [(line[0], line[2:]) for line in record.splitlines()]
        name = dict(lines).get("P")
        if name in REAL:
            file = f"{name}-{dict(lines)['V']}.apk"
            made[file] = publisher.package(fields_of(lines), files_of(root, lines))
    expect(len(made) == len(REAL), f"of {', '.join(REAL)} only these were found: {', '.join(made)}")
    return made


def fields_of(lines):
    fields = [(FIELDS[letter], value) for letter, value in lines if letter in FIELDS]
    return fields + [(LISTS[letter], one) for letter, value in lines if letter in LISTS for one in value.split()]


def files_of(root, lines):
    files, place = [], ""
    for letter, value in lines:
        if letter == "F":
            place = value
        if letter in "FR" and value:
            path = f"{place}/{value}" if letter == "R" and place else value
            files.append(file_of(root, path))
    return files


def file_of(root, path):
    there = root / path
    state = os.lstat(there)
    if stat.S_ISDIR(state.st_mode):
        return folder(path)
    if stat.S_ISLNK(state.st_mode):
        info = entry(path, mode=0o777)
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(there)
        return info, None
    content = there.read_bytes()
    return entry(path, content, stat.S_IMODE(state.st_mode)), content
