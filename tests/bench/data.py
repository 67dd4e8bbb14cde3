"""What the upstream of the benchmark serves: files of fixed sizes, and documents whose digests match those files.

Everything is made from fixed seeds, so two machines measure the same bytes. Files lie on disk and are kept between
runs; documents are templates: the origin puts in the name that was asked for and its own address.
"""

import base64
import functools
import gzip
import hashlib
import json
import random
import tarfile

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = {"1k": KIB, "10k": 10 * KIB, "10m": 10 * MIB, "100m": 100 * MIB, "1g": GIB}

# Which file a version stands for, the same in every format. Versions above these name files that nobody asks for.
VERSIONS = {"0.0.1": "10k", "0.0.2": "10m", "0.0.3": "100m"}

# Of these there is a package for Alpine that holds the file.
APKS = ("10m", "100m")

NPM_VERSIONS = 3_000
PYPI_FILES = 3_000
HELM_CHARTS, HELM_VERSIONS = 195, 100

# Versions of the one chart of the small Helm repository: each is another file to the cache.
CHART_VERSIONS = 500

# `@FILE@` is the name as it stands in the names of wheels: no dash may be in it.
NAME, FILE, BASE = b"@NAME@", b"@FILE@", b"@BASE@"

_WORDS = (
    "array",
    "babel",
    "cache",
    "core",
    "event",
    "fetch",
    "glob",
    "hash",
    "http",
    "lint",
    "merge",
    "parse",
    "queue",
)


class Files:
    """The files on disk and their digests."""

    def __init__(self, directory):
        self.directory = directory
        self._digests = {}

    def path(self, size):
        return self.directory / f"{size}.bin"

    def digest(self, size, algorithm="sha256"):
        """Raw digest of a file."""
        return bytes.fromhex(self._digests[size][algorithm])

    def sha256(self, size):
        return self._digests[size]["sha256"]

    def about(self, name):
        """All that is known of a file beside its digests."""
        return self._digests[name]

    def length(self, size):
        return self.path(size).stat().st_size

    def prepare(self):
        """Makes what is missing, and reads or makes the list of digests."""
        self.directory.mkdir(parents=True, exist_ok=True)
        known = self.directory / "digests.json"
        held = json.loads(known.read_text()) if known.exists() else {}
        for size, length in SIZES.items():
            path = self.path(size)
            if size not in held or not path.exists() or path.stat().st_size != length:
                held[size] = write_file(path, size, length)
        for size in APKS:
            name = f"apk-{size}"
            if name not in held or not self.path(name).exists() or self.path(name).stat().st_size != held[name]["length"]:
                held[name] = write_apk(self.path(name), self.path(size), size)
        known.write_text(json.dumps(held, indent=1) + "\n")
        self._digests = held
        return self


def write_file(path, seed, length):
    """Writes `length` bytes that do not compress, and gives their digests.

    Each MiB begins with its number, so that no two can be mixed up unseen.
    """
    hashes = {name: hashlib.new(name) for name in ("sha1", "sha256", "sha512")}
    block = random.Random(f"larder {seed}").randbytes(min(length, MIB))
    with path.open("wb") as file:
        for number in range(-(-length // MIB)):
            part = (number.to_bytes(8, "big") + block[8:])[: length - number * MIB]
            file.write(part)
            for each in hashes.values():
                each.update(part)
    return {name: each.hexdigest() for name, each in hashes.items()}


def documents(files):
    """All templates by name."""
    return {
        "npm full": npm(files, NPM_VERSIONS, full=True),
        "npm abbreviated": npm(files, NPM_VERSIONS, full=False),
        "npm few full": npm(files, len(VERSIONS), full=True),
        "npm few abbreviated": npm(files, len(VERSIONS), full=False),
        "pypi html": pypi_html(files, PYPI_FILES),
        "pypi json": pypi_json(files, PYPI_FILES),
        "pypi few html": pypi_html(files, len(VERSIONS)),
        "pypi few json": pypi_json(files, len(VERSIONS)),
        "helm": helm_index(),
        "charts": chart_index(files),
    }


def hexadecimal(chance, digits):
    return f"{chance.getrandbits(4 * digits):0{digits}x}"


# --- npm -------------------------------------------------------------------------------------------------------------


def npm(files, count, full):
    """A packument: about 10 MB for 3,000 versions in full, three quarters of that abbreviated."""
    chance = random.Random("npm")
    versions, times = {}, {}
    for number in range(count):
        version = npm_version(number)
        versions[version] = manifest(chance, files, version, number, full)
        times[version] = f"20{10 + number // 250}-{number // 20 % 12 + 1:02}-{number % 28 + 1:02}T08:00:00.000Z"
    document = {"name": "@NAME@", "dist-tags": {"latest": version}, "versions": versions}
    if full:
        about = {
            "_id": "@NAME@",
            "_rev": "9-0a",
            "readme": "A package.\n" * 500,
            "license": "MIT",
            "maintainers": [PERSON],
        }
        document = {**about, **document, "time": {**times, "created": times["0.0.1"], "modified": times[version]}}
    else:
        document["modified"] = times[version]
    return json.dumps(document, separators=(",", ":")).encode()


PERSON = {"name": "somebody", "email": "somebody@example.com"}


def npm_version(number):
    return f"0.0.{number + 1}" if number < 3 else f"{number // 200 + 1}.{number // 10 % 20}.{number % 10}"


def manifest(chance, files, version, number, full):
    def several(count, prefix, sign):
        names = (f"{prefix}{chance.choice(_WORDS)}-{chance.choice(_WORDS)}-{index}" for index in range(count))
        return {name: f"{sign}{chance.randrange(9)}.{chance.randrange(20)}.{chance.randrange(20)}" for name in names}

    size = VERSIONS.get(version)
    sha512 = files.digest(size, "sha512") if size else chance.randbytes(64)
    dist = {
        "integrity": "sha512-" + base64.b64encode(sha512).decode(),
        "shasum": files.digest(size, "sha1").hex() if size else hexadecimal(chance, 40),
        "tarball": f"@BASE@/@NAME@/-/@NAME@-{version}.tgz",
        "fileCount": chance.randrange(500),
        "unpackedSize": chance.randrange(10_000_000),
        "signatures": [{"keyid": "SHA256:" + "k" * 43, "sig": base64.b64encode(chance.randbytes(71)).decode()}],
    }
    brief = {
        "name": "@NAME@",
        "version": version,
        "dependencies": several(28, "", "^"),
        "devDependencies": several(36, "@types/", "~"),
        "dist": dist,
        "engines": {"node": ">=18"},
    }
    if not full:
        return brief
    return {
        **brief,
        "description": "A package with a long history",
        "main": "lib/index.js",
        "scripts": {"build": "tsc --project .", "test": "node --test", "lint": "eslint ."},
        "repository": {"type": "git", "url": "git+https://git.example.com/some/@NAME@.git"},
        "author": PERSON,
        "license": "MIT",
        "gitHead": hexadecimal(chance, 40),
        "_id": f"@NAME@@{version}",
        "_nodeVersion": "22.1.0",
        "_npmVersion": "11.0.0",
        "_npmUser": PERSON,
        "maintainers": [PERSON],
        "_npmOperationalInternal": {"host": "store", "tmp": f"tmp/@NAME@_{version}_{number}_{chance.random()}"},
    }


# --- PyPI ------------------------------------------------------------------------------------------------------------


def pypi_files(files, count):
    """Name, SHA-256, SHA-256 of the metadata, and length of each file of a project."""
    chance = random.Random("pypi")
    named = list(VERSIONS.items())
    for number in range(count):
        if number < len(named):
            version, size = named[number]
            yield f"@FILE@-{version}-py3-none-any.whl", files.sha256(size), hexadecimal(chance, 64), SIZES[size]
        else:
            version = f"{number // 200 + 1}.{number // 10 % 20}.{number % 10}"
            tag = f"cp3{9 + number % 6}-cp3{9 + number % 6}-manylinux_2_17_x86_64.manylinux2014_x86_64"
            digest, metadata = hexadecimal(chance, 64), hexadecimal(chance, 64)
            yield f"@FILE@-{version}-{tag}.whl", digest, metadata, chance.randrange(90_000_000)


def pypi_url(name, digest):
    return f"@BASE@/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{name}"


def pypi_html(files, count):
    head = '<meta name="pypi:repository-version" content="1.3"><title>@NAME@</title>'
    lines = [f"<!DOCTYPE html>\n<html><head>{head}</head>\n<body>"]
    for name, digest, metadata, _ in pypi_files(files, count):
        lines.append(
            f'<a href="{pypi_url(name, digest)}#sha256={digest}" data-requires-python="&gt;=3.9" '
            f'data-dist-info-metadata="sha256={metadata}" data-core-metadata="sha256={metadata}">{name}</a><br />'
        )
    return "\n".join([*lines, "</body></html>\n"]).encode()


def pypi_json(files, count):
    entries = [
        {
            "filename": name,
            "url": pypi_url(name, digest),
            "hashes": {"sha256": digest},
            "requires-python": ">=3.9",
            "size": length,
            "upload-time": "2025-01-01T00:00:00.000000Z",
            "yanked": False,
            "core-metadata": {"sha256": metadata},
            "data-dist-info-metadata": {"sha256": metadata},
            "provenance": None,
        }
        for name, digest, metadata, length in pypi_files(files, count)
    ]
    versions = sorted({entry["filename"].split("-")[1] for entry in entries})
    document = {"meta": {"api-version": "1.3"}, "name": "@NAME@", "versions": versions, "files": entries}
    return json.dumps(document, separators=(",", ":")).encode()


# --- Helm ------------------------------------------------------------------------------------------------------------


def chart_entry(name, version, digest, number):
    return f"""\
  - annotations:
      category: Database
      images: |
        - name: app
          image: registry.example.com/app-{name}:{version}-r{number}
        - name: exporter
          image: registry.example.com/exporter-{name}:{version}-r{number}
      licenses: Apache-2.0
    apiVersion: v2
    appVersion: {version}
    created: "2025-01-01T00:00:00.000000000Z"
    dependencies:
    - name: common
      repository: oci://registry.example.com/charts
      tags:
      - common
      version: 2.x.x
    description: {name} is a chart whose description has a usual length.
    digest: {digest}
    home: https://example.com
    icon: https://example.com/assets/{name}/img/{name}-stack-110x117.png
    keywords:
    - database
    - storage
    maintainers:
    - name: Example, Inc.
      url: https://git.example.com/charts
    name: {name}
    sources:
    - https://git.example.com/charts/tree/main/{name}
    urls:
    - @BASE@/{name}-{version}.tgz
    version: {version}
"""


def helm_index():
    """About 20 MB, as large as the largest public repositories."""
    chance = random.Random("helm")
    parts = ["apiVersion: v1\nentries:\n"]
    for chart in range(HELM_CHARTS):
        name = f"chart-{chart:03}"
        parts.append(f"  {name}:\n")
        for number in range(HELM_VERSIONS):
            version = f"{9 - number // 12}.{11 - number % 12}.0"
            parts.append(chart_entry(name, version, hexadecimal(chance, 64), number))
    parts.append('generated: "2026-01-01T00:00:00.000000000Z"\n')
    return "".join(parts).encode()


def chart_index(files):
    """One chart with many versions: `demo-1.N.0.tgz` is the file of 10 MiB, `demo-2.N.0.tgz` that of 100 MiB."""
    parts = ["apiVersion: v1\nentries:\n  demo:\n"]
    for major, size in ((1, "10m"), (2, "100m")):
        for number in range(CHART_VERSIONS):
            parts.append(chart_entry("demo", f"{major}.{number}.0", files.sha256(size), number))
    return "".join(parts).encode()


# --- images ----------------------------------------------------------------------------------------------------------

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@functools.cache
def image(files):
    """Digest and bytes of a manifest."""
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + files.sha256("1g"), "size": GIB}
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:" + files.sha256("1k"), "size": KIB}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]}
    body = json.dumps(manifest, indent=3).encode()
    return "sha256:" + hashlib.sha256(body).hexdigest(), body


# --- RPM -------------------------------------------------------------------------------------------------------------


@functools.cache
def rpm_metadata(files):
    """The files of `repodata` by name: a repository whose packages are the files."""
    packages = "".join(
        f'<package type="rpm"><name>p-{size}</name><arch>x86_64</arch><version epoch="0" ver="1" rel="1"/>'
        f'<checksum type="sha256" pkgid="YES">{files.sha256(size)}</checksum>'
        f'<size package="{length}" installed="{length}" archive="{length}"/>'
        f'<location href="Packages/p-{size}-1-1.x86_64.rpm"/></package>\n'
        for size, length in SIZES.items()
    )
    primary = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<metadata xmlns="http://linux.duke.edu/metadata/common" '
        f'packages="{len(SIZES)}">\n{packages}</metadata>\n'
    ).encode()
    packed = gzip.compress(primary, mtime=0)
    name = f"{hashlib.sha256(packed).hexdigest()}-primary.xml.gz"
    repomd = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<repomd xmlns="http://linux.duke.edu/metadata/repo">\n'
        '<revision>1</revision><data type="primary">'
        f'<checksum type="sha256">{hashlib.sha256(packed).hexdigest()}</checksum>'
        f'<open-checksum type="sha256">{hashlib.sha256(primary).hexdigest()}</open-checksum>'
        f'<location href="repodata/{name}"/><timestamp>1</timestamp><size>{len(packed)}</size></data></repomd>\n'
    ).encode()
    return {"repomd.xml": repomd, name: packed}


# --- Alpine ----------------------------------------------------------------------------------------------------------


def write_apk(path, content, size):
    """A package of apk 2 (apk-v2(5)) without a signature, and what an index says of it.

    Two gzip members: control, which names the digest of the second as it is compressed, and data.
    """
    payload = gzip.compress(tar_entry(f"usr/share/p-{size}", content.read_bytes()) + bytes(1024), compresslevel=1, mtime=0)
    about = f"pkgname = p-{size}\npkgver = 1-r0\narch = x86_64\ndatahash = {hashlib.sha256(payload).hexdigest()}\n".encode()
    control = gzip.compress(tar_entry(".PKGINFO", about), mtime=0)
    package = control + payload
    path.write_bytes(package)
    return {
        "sha256": hashlib.sha256(package).hexdigest(),
        "length": len(package),
        "control": hashlib.sha1(control).hexdigest(),
    }


def tar_entry(name, content):
    """One file of a tar archive, padded, without the blocks that end an archive."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


@functools.cache
def apk_index(files):
    """An APKINDEX.tar.gz of the packages, unsigned."""
    records = []
    for size in APKS:
        about = files.about(f"apk-{size}")
        identity = base64.b64encode(bytes.fromhex(about["control"])).decode()
        records.append(f"C:Q1{identity}\nP:p-{size}\nV:1-r0\nA:x86_64\nS:{about['length']}\nI:1\nT:{size}\n\n")
    body = tar_entry("DESCRIPTION", b"bench") + tar_entry("APKINDEX", "".join(records).encode()) + bytes(1024)
    return gzip.compress(body, mtime=0)
