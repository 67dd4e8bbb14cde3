"""Container images with skopeo, podman and buildah: by tag, by digest, whole indexes, and through mirror settings."""

import contextlib
import hashlib
import json
import subprocess
import time
from pathlib import Path

from harness import STEP_SECONDS, Failed, ask, environment, expect, expect_equal, run, tool
from oci_images import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Registry
from oci_logins import PASSWORD, USER, Basic, Tokens
from origin import free_port

# Tags are asked about on every request: with HEAD, and with GET only if they have moved.
CACHE = {"immutable_ttl": 0, "mutable_ttl": 0}

# A name that never resolves: nothing can get past the mirror unseen.
MIRRORED = "registry.mirrored.test"


def remote(registry, **more):
    entry = {"base_url": registry.url, "type": "remote", "package": "docker", "revalidate": "head", "cache": CACHE}
    return {**entry, **more}


def serve(case, **more):
    registry = Registry(case)
    case.serve({"images": remote(registry, **more)}, docker_default_remote="images")
    return registry


def prefix(case, registry):
    """What image names begin with."""
    return registry.origin.host if case.direct else case.listens_at.removeprefix("http://") + "/images"


def few_requests(case, registry, phase, mark):
    """Of a tag that has not moved, nothing but its head is asked."""
    if phase != "warm" or case.direct:
        return
    asked = registry.origin.requests(mark)
    bodies = [str(request) for request in asked if "/manifests/" in request.path and request.method != "HEAD"]
    expect(not bodies, "a manifest was fetched again:\n" + "\n".join(bodies))
    blobs = [str(request) for request in asked if "/blobs/sha256:" in request.path]
    expect(not blobs, "a blob was asked for again:\n" + "\n".join(blobs))


class Containers:
    """skopeo, podman and buildah: they share their configuration."""

    def __init__(self, home, insecure=(), mirror=None):
        self.home = home
        registries = 'unqualified-search-registries = []\n'
        for host in insecure:
            registries += f'[[registry]]\nlocation = "{host}"\ninsecure = true\n'
        if mirror:
            registries += f'[[registry]]\nprefix = "{MIRRORED}"\nlocation = "{MIRRORED}"\n'
            registries += f'[[registry.mirror]]\nlocation = "{mirror}"\ninsecure = true\n'
        files = {
            "registries.conf": registries,
            "policy.json": '{"default":[{"type":"insecureAcceptAnything"}]}',
            "storage.conf": f'[storage]\ndriver = "vfs"\ngraphroot = "{home}/root"\nrunroot = "{home}/run"\n',
            "auth.json": "{}",
        }
        for name, text in files.items():
            (home / name).write_text(text)
        (home / "xdg").mkdir(mode=0o700)
        self._environment = environment(
            home,
            CONTAINERS_STORAGE_CONF=str(home / "storage.conf"),
            CONTAINERS_REGISTRIES_CONF=str(home / "registries.conf"),
            REGISTRY_AUTH_FILE=str(home / "auth.json"),
            XDG_RUNTIME_DIR=str(home / "xdg"),
            BUILDAH_ISOLATION="chroot",
        )

    def __call__(self, program, *arguments, **options):
        return run([tool(program), *arguments], cwd=self.home, env=self._environment, **options)

    def skopeo(self, *arguments, **options):
        return self("skopeo", "--policy", self.home / "policy.json", *arguments, **options)

    def pull(self, program, verb, image):
        return self(program, verb, "-q", "--signature-policy", self.home / "policy.json", image).strip()


def skopeo(case):
    """inspect, list-tags, copy: by tag, by digest, every platform, another platform, with unchanged digests."""
    registry = serve(case)
    base = prefix(case, registry)

    def use(home, phase):
        do = Containers(home, insecure=[base.partition("/")[0]])
        mark = registry.origin.mark()
        seen = json.loads(do.skopeo("inspect", "--tls-verify=false", f"docker://{base}/app/single:1.0"))
        expect_equal("digest", seen["Digest"], registry.digest("app/single"))
        expect_equal("architecture", seen["Architecture"], "amd64")
        listed = json.loads(do.skopeo("list-tags", "--tls-verify=false", f"docker://{base}/app/single"))["Tags"]
        expect_equal("tags, over three pages", listed, ["1.0", *(f"t{number}" for number in range(7))])
        for image in ("app/single", "app/s2", "app/zstd", "app/big", "a/b/c/manifests/blobs"):
            copied(do, registry, base, image, ":1.0", "--preserve-digests")
        for image in ("app/multi", "app/list"):
            copied(do, registry, base, image, ":1.0", "--all", "--preserve-digests")
            copied(do, registry, base, image, "@" + registry.digest(image), "--all")
        do.skopeo("copy", "-q", "--src-tls-verify=false", "--override-arch", "arm64", f"docker://{base}/app/multi:1.0", f"oci:{home}/arm:x")
        missing = do.skopeo("inspect", "--tls-verify=false", f"docker://{base}/app/single:none", fails=True)
        expect(phase not in ("cold", "warm") or "manifest unknown" in missing, f"a tag that is not there:\n{missing}")
        few_requests(case, registry, phase, mark)

    case.phases(use)


def copied(do, registry, base, image, reference, *options, seconds=STEP_SECONDS):
    """Copies an image into a directory; its manifest must be the upstream's, byte for byte."""
    name = hashlib.sha256(f"{image}{reference}{options}".encode()).hexdigest()[:8]
    do.skopeo("copy", "-q", "--src-tls-verify=false", *options, f"docker://{base}/{image}{reference}", f"dir:{do.home}/{name}", seconds=seconds)
    manifest = (do.home / name / "manifest.json").read_bytes()
    expect_equal(f"digest of {image}", "sha256:" + hashlib.sha256(manifest).hexdigest(), registry.digest(image))
    for blob in (do.home / name).iterdir():
        if len(blob.name) == 64:
            with blob.open("rb") as content:
                expect_equal(f"blob of {image}", hashlib.file_digest(content, "sha256").hexdigest(), blob.name)


def podman(case):
    """podman pull, by name and as a mirror of another registry, also of short names; buildah from."""
    registry = serve(case)
    base = prefix(case, registry)
    host = base.partition("/")[0]

    def use(home, phase):
        do = Containers(home, insecure=[host], mirror=base)
        mark = registry.origin.mark()
        for image in ("app/single", "app/multi", "app/s2", "app/zstd", "app/big"):
            expect(do.pull("podman", "pull", f"{base}/{image}:1.0"), f"podman pull {image} printed no id")
        do.pull("podman", "pull", f"{base}/app/list@{registry.digest('app/list')}")
        do.pull("podman", "pull", f"{MIRRORED}/library/single:1.0")
        names = do("podman", "images", "--format", "{{.Repository}}:{{.Tag}}").split()
        expect(f"{MIRRORED}/library/single:1.0" in names, f"the mirrored image is not there: {names}")
        container = do.pull("buildah", "from", f"{base}/app/list:1.0")
        mounted = Path(do("buildah", "mount", container).strip())
        expect_equal("a file of the image", (mounted / "etc/larder").read_text().split()[0], "app/list")
        do("buildah", "rm", container)
        few_requests(case, registry, phase, mark)

    case.phases(use)


def requests(case):
    """What no client here does: a Docker Engine's unprefixed names, heads, ranges, accepted types, and what is refused."""
    registry = serve(case, negative_ttl=0)
    case.needs_larder()
    base = case.listens_at + "/v2/images"

    def use(_, phase):
        ping = ask(case.listens_at + "/v2/")
        expect_equal("version", ping.headers["Docker-Distribution-API-Version"], "registry/2.0")
        for image, accept, kind in (
            ("app/multi", OCI_INDEX, OCI_INDEX),
            ("app/multi", OCI_MANIFEST, OCI_MANIFEST),
            ("app/list", DOCKER_MANIFEST, DOCKER_MANIFEST),
            ("app/list", DOCKER_LIST, DOCKER_LIST),
        ):
            url = f"{base}/{image}/manifests/1.0?ns=x.test"
            head, got = ask(url, "HEAD", Accept=accept), ask(url, Accept=accept)
            for name in ("Content-Type", "Content-Length", "Docker-Content-Digest"):
                expect_equal(f"{name} of HEAD", head.headers[name], got.headers[name])
            expect_equal("type", got.type, kind)
            expect_equal("digest", got.headers["Docker-Content-Digest"], "sha256:" + hashlib.sha256(got.body).hexdigest())
        manifest = json.loads(ask(f"{base}/app/big/manifests/{registry.digest('app/big')}").body)
        blob = f"{base}/app/big/blobs/{manifest['layers'][0]['digest']}"
        part = ask(blob, wanted=206, Range="bytes=1000-1999", Accept_Encoding="zstd, gzip")
        expect_equal("range", (part.body, part.headers["Content-Encoding"]), (ask(blob).body[1000:2000], None))
        alias = f"{case.listens_at}/images/v2/app/big/blobs/{manifest['layers'][0]['digest']}"
        expect_equal("alias", ask(alias).body, ask(blob).body)
        refused = json.loads(ask(f"{base}/app/big/blobs/uploads/", "POST", wanted=405).body)
        expect_equal("push", refused["errors"][0]["code"], "UNSUPPORTED")
        # A Docker Engine asks its mirror without a repository's name.
        unprefixed = ask(f"{case.listens_at}/v2/library/single/manifests/1.0")
        expect_equal("unprefixed", unprefixed.headers["Docker-Content-Digest"], registry.digest("library/single"))
        referrers = 404 if phase in ("cold", "warm") else 502
        ask(f"{base}/app/big/referrers/{registry.digest('app/big')}", wanted=referrers)

    case.phases(use)


def logins(case):
    """Upstreams that want to know who asks: Basic, tokens for anybody, tokens for those who log in, tokens that end early."""
    kinds = {
        "basic": Basic(),
        "anonymous": Tokens(named=False),
        "token": Tokens(named=True),
        "expiring": Tokens(named=True, uses=3),
    }
    registries = {name: Registry(case, name, login) for name, login in kinds.items()}
    case.needs_larder()
    user = {"username": USER, "password": PASSWORD}
    case.serve({name: remote(registries[name], **(user if login.named else {})) for name, login in kinds.items()})
    host = case.listens_at.removeprefix("http://")

    def use(home, phase):
        do = Containers(home, insecure=[host])
        for name, registry in registries.items():
            mark = registry.origin.mark()
            base = f"{host}/{name}"
            copied(do, registry, base, "app/multi", ":1.0", "--all", "--preserve-digests")
            copied(do, registry, base, "app/big", ":1.0")
            expect(do.pull("podman", "pull", f"{base}/app/zstd:1.0"), f"podman pull from {name} printed no id")
            few_requests(case, registry, phase, mark)
            told = ask(f"{case.listens_at}/v2/{name}/app/multi/manifests/1.0").headers
            expect(told["WWW-Authenticate"] is None, f"{name}: a challenge came through")
        for name in ("anonymous", "token"):
            asked = kinds[name].asked
            expect(len(asked) == len(set(asked)), f"{name}: more than one token for one scope: {asked}")
        if phase == "cold":
            expect(len(kinds["expiring"].asked) > len(kinds["token"].asked), "no token was ever renewed")

    case.phases(use)


def scopeless(case):
    """A registry whose challenges name no scope: each client asks for a token to pull the image, and so does larder."""
    login = Tokens(named=False, scoped=False)
    registry = Registry(case, login=login)
    case.serve({"images": remote(registry)})
    base = prefix(case, registry)

    def use(home, phase):
        do = Containers(home, insecure=[base.partition("/")[0]])
        mark = registry.origin.mark()
        copied(do, registry, base, "app/multi", ":1.0", "--all", "--preserve-digests")
        copied(do, registry, base, "a/b/c/manifests/blobs", ":1.0")
        expect(do.pull("podman", "pull", f"{base}/app/zstd:1.0"), "podman pull printed no id")
        few_requests(case, registry, phase, mark)
        images = ("app/multi", "a/b/c/manifests/blobs", "app/zstd")
        expect_equal("scopes", set(login.asked), {f"repository:{image}:pull" for image in images})

    case.phases(use)


def warmed(case):
    """A client that takes one type of manifest has brought an image; others, which take more, get it when the registry is gone."""
    registry = serve(case)
    case.needs_larder()
    for image, accept in (("app/single", OCI_MANIFEST), ("app/s2", DOCKER_MANIFEST)):
        base = f"{case.listens_at}/v2/images/{image}"
        manifest = json.loads(ask(f"{base}/manifests/1.0", Accept=accept).body)
        for blob in (manifest["config"], *manifest["layers"]):
            ask(f"{base}/blobs/{blob['digest']}")
    registry.origin.stop()
    base = prefix(case, registry)
    do = Containers(case.home(), insecure=[base.partition("/")[0]])
    for image in ("app/single", "app/s2"):
        copied(do, registry, base, image, ":1.0", "--preserve-digests")
        expect(do.pull("podman", "pull", f"{base}/{image}:1.0"), f"podman pull {image} printed no id")


@contextlib.contextmanager
def distribution(home, port):
    """The reference registry, on its own data; images can be pushed to it."""
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(home / "registry")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    # JSON is YAML.
    (home / "registry.yml").write_text(json.dumps(config))
    clean = environment(home, OTEL_TRACES_EXPORTER="none")
    with (home / "registry.log").open("ab") as log:
        command = [tool("docker-registry"), "serve", str(home / "registry.yml")]
        daemon = subprocess.Popen(command, env=clean, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                ask(f"http://127.0.0.1:{port}/v2/")
                break
            except (OSError, Failed):
                expect(daemon.poll() is None and time.monotonic() < deadline, "docker-registry did not start")
                time.sleep(0.05)
        yield
    finally:
        daemon.terminate()
        daemon.wait(timeout=10)


def reference(case):
    """The reference registry as upstream: images that skopeo has pushed to it come back unchanged, and without it too."""
    images = Registry(case)
    case.needs_larder()
    port, data = free_port(), case.home()
    upstream = f"127.0.0.1:{port}"
    entry = {"base_url": f"http://{upstream}", "type": "remote", "package": "docker", "cache": CACHE}
    case.serve({"images": {**entry, "revalidate": "head"}})
    base = case.listens_at.removeprefix("http://") + "/images"
    names = ("app/single", "app/multi", "app/s2", "app/list", "app/zstd", "app/big")

    def pull(phase):
        do = Containers(case.home(), insecure=[base.partition("/")[0]])
        for image in names:
            copied(do, images, base, image, ":1.0", "--all", "--preserve-digests")
        expect(do.pull("podman", "pull", f"{base}/app/multi:1.0"), f"podman pull printed no id ({phase})")
        listed = json.loads(do.skopeo("list-tags", "--tls-verify=false", f"docker://{base}/app/single"))["Tags"]
        expect_equal(f"tags ({phase})", listed, ["1.0"])

    with distribution(data, port):
        push = Containers(case.home())
        for image in names:
            source, target = f"docker://{images.origin.host}/{image}:1.0", f"docker://{upstream}/{image}:1.0"
            options = ("--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
            push.skopeo("copy", "-q", *options, source, target)
        pull("cold")
        begun = (data / "registry.log").stat().st_size
        pull("warm")
        log = (data / "registry.log").read_bytes()[begun:].decode(errors="replace")
        again = [line for line in log.splitlines() if '"GET /v2/' in line and "/tags/list" not in line]
        expect('"HEAD /v2/' in log, "the upstream was asked for no head: are requests seen at all?")
        expect(not again, "the upstream was asked again:\n" + "\n".join(again[:5]))
    pull("stopped")


ORAS = """
import hashlib, json, sys, oras.client
host, image = sys.argv[1:]
client = oras.client.OrasClient(hostname=host, insecure=True, tls_verify=False)
name = f"{host}/{image}"
manifest = client.get_manifest(f"{name}:1.0")
blobs = [client.get_blob(name, layer["digest"]).content for layer in manifest["layers"]]
digests = ["sha256:" + hashlib.sha256(blob).hexdigest() for blob in blobs]
print(json.dumps({"tags": client.get_tags(name), "manifest": manifest, "digests": digests}))
"""


def oras(case):
    """The Python client of ORAS: tags, a manifest, and the layers of an artifact."""
    registry = serve(case)
    base = prefix(case, registry)

    def use(home, phase):
        mark = registry.origin.mark()
        host, _, below = base.partition("/")
        image = f"{below}/app/single".removeprefix("/")
        out = run([tool("oras-python"), "-c", ORAS, host, image], cwd=home, env=environment(home))
        said = json.loads(out.splitlines()[-1])
        expect_equal("tags", sorted(said["tags"]), ["1.0", *(f"t{number}" for number in range(7))])
        layers = [layer["digest"] for layer in said["manifest"]["layers"]]
        expect_equal("layers", said["digests"], layers)
        expect(len(layers) == 1, f"no layer was pulled:\n{out}")
        few_requests(case, registry, phase, mark)

    case.phases(use)


CASES = {
    "oci-oras": oras,
    "oci-skopeo": skopeo,
    "oci-podman": podman,
    "oci-logins": logins,
    "oci-scopeless": scopeless,
    "oci-warmed": warmed,
    "oci-reference": reference,
    "oci-requests": requests,
}
