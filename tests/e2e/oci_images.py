"""A container registry with images made here: OCI and Docker formats, several platforms, zstd layers, deep names."""

import gzip
import hashlib
import io
import json
import struct
import tarfile

from archives import noise
from origin import Resource

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

PLATFORMS = ("amd64", "arm64")


def sha256(body):
    return "sha256:" + hashlib.sha256(body).hexdigest()


def layer(members):
    """An uncompressed layer of {name: content}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 1704164646
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def zstd(body):
    """A Zstandard frame of raw blocks (RFC 8878): no compressor is needed to make one."""
    frame = struct.pack("<IBQ", 0xFD2FB528, 0b11100000, len(body))
    blocks = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    for number, block in enumerate(blocks):
        head = (len(block) << 3) | (number == len(blocks) - 1)
        frame += struct.pack("<I", head)[:3] + block
    return frame


class Registry:
    """The pull side of the distribution API, on an `Origin`.

    A tag that stands for an index gives its first manifest to clients that take no index, as registries do.
    """

    def __init__(self, case, name="registry", login=None):
        self.origin = case.origin(name)
        if login:
            # Asked before anything that is served.
            served, self.origin.respond = self.origin.respond, lambda request: login(request) or served(request)
            login.host = self.origin.host
        self.tags = {}
        self.digests = {}
        self.origin.answer("/v2/", lambda _: Resource(b"{}", "application/json"))
        for image, small in (("app/single", True), ("library/single", True), ("a/b/c/manifests/blobs", True), ("app/big", False)):
            self._tag(image, "1.0", self._image(image, "amd64", small=small))
        self._tag("app/multi", "1.0", self._index("app/multi"))
        self._tag("app/s2", "1.0", self._image("app/s2", "amd64", docker=True))
        self._tag("app/list", "1.0", self._index("app/list", docker=True))
        self._tag("app/zstd", "1.0", self._image("app/zstd", "amd64", packed="zstd"))
        for number in range(7):
            self._tag("app/single", f"t{number}", self.tags["app/single", "1.0"])
        for image in {image for image, _ in self.tags}:
            self.origin.answer(f"/v2/{image}/tags/list", lambda request, image=image: self._list(image, request))

    @property
    def url(self):
        return self.origin.url

    def digest(self, image, tag="1.0"):
        return self.tags[image, tag][0]

    def _blob(self, image, body):
        digest = sha256(body)
        self.origin.put(f"/v2/{image}/blobs/{digest}", body, immutable=True, Docker_Content_Digest=digest)
        return {"size": len(body), "digest": digest}

    def add(self, image, ballast):
        """One more image, with an uncompressed layer that holds `ballast`."""
        self._tag(image, "1.0", self._image(image, "amd64", packed=None, ballast=ballast))

    def _image(self, image, arch, *, docker=False, packed="gzip", small=True, ballast=None):
        files = {"etc/larder": f"{image} {arch}\n".encode()}
        if not small:
            files["var/ballast"] = noise(5_000_000, image)
        if ballast:
            files["var/ballast"] = ballast
        plain = layer(files)
        body = {"gzip": lambda: gzip.compress(plain, mtime=0), "zstd": lambda: zstd(plain), None: lambda: plain}[packed]()
        config = {
            "architecture": arch,
            "os": "linux",
            "config": {"Cmd": ["/bin/cat", "/etc/larder"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(plain)]},
            "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "tests"}],
        }
        kinds = ("vnd.docker.container.image.v1+json", "vnd.docker.image.rootfs.diff.tar.gzip")
        if not docker:
            kinds = ("vnd.oci.image.config.v1+json", "vnd.oci.image.layer.v1.tar" + (f"+{packed}" if packed else ""))
        config_type, layer_type = (f"application/{kind}" for kind in kinds)
        media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
        # An unusual order and spacing: bytes that were written anew would have another digest.
        text = json.dumps(
            {
                "schemaVersion": 2,
                "layers": [{"mediaType": layer_type, **self._blob(image, body)}],
                "mediaType": media_type,
                "config": {"mediaType": config_type, **self._blob(image, json.dumps(config).encode())},
            },
            indent=3,
        )
        return self._manifest(image, text.encode(), media_type)

    def _index(self, image, *, docker=False):
        media_type = DOCKER_LIST if docker else OCI_INDEX
        manifests = []
        for arch in PLATFORMS:
            digest, body, kind = self._image(image, arch, docker=docker)
            platform = {"architecture": arch, "os": "linux"}
            manifests.append({"mediaType": kind, "digest": digest, "size": len(body), "platform": platform})
        text = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}, indent=1)
        return self._manifest(image, text.encode(), media_type)

    def _manifest(self, image, body, media_type):
        digest = sha256(body)
        self.digests[digest] = (digest, body, media_type)
        self.origin.put(
            f"/v2/{image}/manifests/{digest}", body, media_type, immutable=True, Docker_Content_Digest=digest
        )
        return digest, body, media_type

    def _tag(self, image, tag, manifest):
        self.tags[image, tag] = manifest
        self.origin.answer(f"/v2/{image}/manifests/{tag}", lambda request: self._by_tag(image, tag, request))

    def _by_tag(self, image, tag, request):
        digest, body, media_type = self.tags[image, tag]
        accepted = ",".join(request.headers.get_all("Accept") or [])
        if media_type not in accepted:
            listed = json.loads(body).get("manifests") or []
            taken = [entry["digest"] for entry in listed if entry["mediaType"] in accepted]
            if not taken:
                return Resource(b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', "application/json", status=404)
            digest, body, media_type = self.digests[taken[0]]
        return Resource(body, media_type, headers={"Docker-Content-Digest": digest})

    def _list(self, image, request):
        """Three to a page; how a list goes on, only the registry understands."""
        tags = sorted(tag for name, tag in self.tags if name == image)
        query = dict(pair.split("=") for pair in request.target.partition("?")[2].split("&") if "=" in pair)
        rest = [tag for tag in tags if f"{tag}%3D" > query.get("cursor", "")]
        page = rest[:3]
        body = json.dumps({"name": image, "tags": page}).encode()
        more = {"Link": f'</v2/{image}/tags/list?n=3&cursor={page[-1]}%3D>; rel="next"'} if len(rest) > 3 else {}
        return Resource(body, "application/json", headers=more)
