"""Wheels, source distributions and simple indexes, in the forms that PyPI upstreams really have.

Two kinds of upstream: one that speaks HTML only, with relative links and no metadata files (an old or simple server),
and one that speaks JSON and HTML, with metadata files, and has a host for the index and another for the files.
"""

import base64
import hashlib
import html
import json
import re
from dataclasses import dataclass

from archives import noise, tar_gz, zipped
from origin import Resource

JSON = "application/vnd.pypi.simple.v1+json"


@dataclass(frozen=True)
class File:
    """A file of a project, with what an index says about it."""

    name: str
    body: bytes
    metadata: bytes | None
    requires_python: str | None = None
    yanked: str | None = None
    uploaded: str = "2024-01-02T03:04:05.000000Z"

    @property
    def digest(self):
        return hashlib.sha256(self.body).hexdigest()


def normalized(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def core_metadata(name, version, requires, requires_python):
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    lines += [f"Requires-Python: {requires_python}"] if requires_python else []
    return "\n".join(lines) + "\n"


def wheel(name, version, requires=(), *, requires_python=None, ballast=0, **more):
    """A pure Python wheel whose module has `version`."""
    module = re.sub(r"[-_.]+", "_", name).lower()
    info = f"{module}-{version}.dist-info"
    metadata = core_metadata(name, version, requires, requires_python).encode()
    members = {f"{module}/__init__.py": f"version = {version!r}\n".encode()}
    if ballast:
        members[f"{module}/ballast.bin"] = noise(ballast, name + version)
    members[f"{info}/METADATA"] = metadata
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: fixture\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{path},sha256={_urlsafe(content)},{len(content)}" for path, content in members.items()]
    members[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    return File(f"{module}-{version}-py3-none-any.whl", zipped(members), metadata, requires_python, **more)


def _urlsafe(content):
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


# A build backend needs no package but itself, so that a source distribution can be built with nothing else at hand.
BACKEND = """
import zipfile

NAME, VERSION = {name!r}, {version!r}
MODULE = NAME.replace("-", "_")

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    file = f"{{MODULE}}-{{VERSION}}-py3-none-any.whl"
    info = f"{{MODULE}}-{{VERSION}}.dist-info"
    with zipfile.ZipFile(f"{{wheel_directory}}/{{file}}", "w") as archive:
        archive.writestr(f"{{MODULE}}/__init__.py", f"version = {{VERSION!r}}\\n")
        archive.writestr(f"{{info}}/METADATA", f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n")
        archive.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(f"{{info}}/RECORD", "")
    return file
"""


def source(name, version):
    """A source distribution with a build backend of its own."""
    module = name.replace("-", "_")
    root = f"{module}-{version}"
    pyproject = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    pyproject += f'[project]\nname = "{name}"\nversion = "{version}"\n'
    members = {
        f"{root}/PKG-INFO": core_metadata(name, version, (), None),
        f"{root}/pyproject.toml": pyproject,
        f"{root}/backend.py": BACKEND.format(name=name, version=version),
    }
    return File(f"{module}-{version}.tar.gz", tar_gz(members), None)


def projects():
    """{name: files}: a dependency, a name that needs normalising, a `+` in a version, and versions not to be chosen."""
    return {
        "pantry-base": [wheel("pantry-base", "1.0"), source("pantry-base", "1.0")],
        "pantry-demo": [
            wheel("pantry-demo", "1.0", ["pantry-base>=1.0"], uploaded="2020-01-01T00:00:00.000000Z"),
            wheel("pantry-demo", "1.1", ["pantry-base>=1.0"], ballast=3_000_000),
            wheel("pantry-demo", "1.2", ["pantry-base>=1.0"], yanked='broken <on> "purpose"'),
            wheel("pantry-demo", "2.0rc1", ["pantry-base>=1.0"]),
            wheel("pantry-demo", "3.0", requires_python=">=99"),
        ],
        "Pantry.Dotted_Name": [wheel("Pantry.Dotted_Name", "1.0")],
        "pantry-local": [wheel("pantry-local", "1.0+cu121", ballast=50_000)],
        "pantry-source": [source("pantry-source", "1.0")],
    }


def before():
    """The projects before any of those files was published."""
    return {name: [wheel(name, "0.1")] for name in projects()}


def serve_html_only(origin, published=None):
    """Relative links, digests in fragments, no JSON whatever is asked for, no metadata files."""
    published = published or projects()
    names = "".join(f'<a href="{normalized(name)}/">{html.escape(name)}</a><br/>\n' for name in published)
    origin.put("/simple/", page(names), "text/html")
    for name, files in published.items():
        links = "".join(anchor(f"../../files/{link_name(file)}", file, metadata=False) for file in files)
        origin.put(f"/simple/{normalized(name)}/", page(links), "text/html; charset=utf-8")
        for file in files:
            origin.put(f"/files/{file.name}", file.body, immutable=True)


def serve_json(index, files_host, published=None):
    """PEP 691 by negotiation, PEP 658/714 metadata files, PEP 700 sizes and upload times; files on another host."""
    published = published or projects()
    listing = {"meta": {"api-version": "1.1"}, "projects": [{"name": name} for name in published]}
    names = "".join(f'<a href="/simple/{normalized(name)}/">{html.escape(name)}</a>\n' for name in published)
    index.answer("/simple/", negotiated(json.dumps(listing), page(names)))
    for name, files in published.items():
        described = [json_file(files_host.url, file) for file in files]
        detail = {
            "meta": {"api-version": "1.1", "_last-serial": 12345},
            "name": normalized(name),
            "versions": sorted({file.name.split("-")[1].removesuffix(".tar.gz") for file in files}),
            "files": described,
            "x-unknown": {"kept": [1.10, None]},
        }
        links = "".join(anchor(link["url"], file, metadata=True) for link, file in zip(described, files, strict=True))
        index.answer(f"/simple/{normalized(name)}/", negotiated(json.dumps(detail), page(links)))
        for file in files:
            path = f"/packages/{file.digest[:2]}/{file.name}"
            files_host.put(path, file.body, immutable=True)
            if file.metadata:
                files_host.put(path + ".metadata", file.metadata, immutable=True)


def negotiated(as_json, as_html):
    def answer(request):
        if JSON in request.headers.get("Accept", ""):
            return Resource(as_json.encode(), JSON, headers={"Vary": "Accept"})
        return Resource(as_html.encode(), "text/html; charset=utf-8", headers={"Vary": "Accept"})

    return answer


def json_file(host, file):
    described = {
        "filename": file.name,
        "url": f"{host}/packages/{file.digest[:2]}/{link_name(file)}",
        "hashes": {"sha256": file.digest},
        "size": len(file.body),
        "upload-time": file.uploaded,
        "yanked": file.yanked if file.yanked is not None else False,
    }
    if file.requires_python:
        described["requires-python"] = file.requires_python
    if file.metadata:
        described["core-metadata"] = {"sha256": hashlib.sha256(file.metadata).hexdigest()}
    return described


def anchor(url, file, *, metadata):
    attributes = [f'href="{url}#sha256={file.digest}"']
    if file.requires_python:
        attributes.append(f'data-requires-python="{html.escape(file.requires_python)}"')
    if file.yanked is not None:
        attributes.append(f'data-yanked="{html.escape(file.yanked)}"')
    if metadata and file.metadata:
        attributes.append(f'data-core-metadata="sha256={hashlib.sha256(file.metadata).hexdigest()}"')
    return f"<a {' '.join(attributes)}>{html.escape(file.name)}</a><br/>\n"


def link_name(file):
    """A file's name as it stands in a link: `+` is percent-encoded."""
    return file.name.replace("+", "%2B")


def page(links):
    version = '<meta name="pypi:repository-version" content="1.0">'
    return f"<!DOCTYPE html>\n<html><head>{version}</head>\n<body>\n{links}</body></html>\n"
