"""Container images with containerd: as a mirror with and without a path, by name, and in the ranges of its later versions."""

import contextlib
import hashlib
import http.client
import json
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from archives import noise
from harness import Failed, ask, environment, expect, expect_equal, run, tool
from oci import MIRRORED, few_requests, prefix, remote, serve
from oci_images import Registry
from oci_logins import Tokens

TRANSFER = "io.containerd.transfer.v1.local"


@contextlib.contextmanager
def containerd(home):
    """A private containerd; gives a function that runs ctr."""
    socket = home / "c.sock"
    plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
    plugins += [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")]
    lines = [
        "version = 2",
        f'root = "{home}/root"',
        f'state = "{home}/state"',
        f"disabled_plugins = {json.dumps(plugins)}",
        f'[grpc]\naddress = "{socket}"',
        f'[ttrpc]\naddress = "{socket}.ttrpc"',
        # From 2.1 on, layers are fetched in parallel ranges where there is a buffer for them. Earlier ones know no such plugin.
        f'[plugins."{TRANSFER}"]\nmax_concurrent_downloads = 8\nconcurrent_layer_fetch_buffer = 1048576',
        f'[[plugins."{TRANSFER}".unpack_config]]\nplatform = "linux/amd64"\nsnapshotter = "native"',
    ]
    (home / "containerd.toml").write_text("\n".join(lines) + "\n")
    clean = environment(home)
    with (home / "containerd.log").open("wb") as log:
        command = [tool("containerd"), "-c", str(home / "containerd.toml")]
        daemon = subprocess.Popen(command, env=clean, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def ctr(*arguments):
        return run([tool("ctr"), "-a", socket, "-n", "larder", *arguments], cwd=home, env=clean)

    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                ctr("version")
                break
            except Failed:
                expect(daemon.poll() is None and time.monotonic() < deadline, "containerd did not start")
                time.sleep(0.1)
        yield ctr
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def with_containerd(case):
    """containerd: hosts.toml with override_path (the requests that RKE2 and k3s make after their rewrite), and by name."""
    registry = serve(case)
    case.needs_larder()
    base = prefix(case, registry)
    host = base.partition("/")[0]

    def use(home, phase):
        hosts = home / "hosts"
        mirror = f'server = "http://{host}"\n[host."http://{host}/v2/images"]\n'
        mirror += '  capabilities = ["pull", "resolve"]\n  override_path = true\n'
        by_name = f'server = "http://{host}"\n[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n'
        for name, text in ((MIRRORED, mirror), (host, by_name)):
            (hosts / name).mkdir(parents=True)
            (hosts / name / "hosts.toml").write_text(text)
        mark = registry.origin.mark()
        with containerd(home) as ctr:

            def pull(image, *options):
                ctr("images", "pull", "--hosts-dir", hosts, "--snapshotter", "native", *options, image)
                return image

            pulled = [pull(f"{MIRRORED}/app/{image}:1.0") for image in ("multi", "s2", "zstd", "big")]
            pulled.append(pull(f"{base}/app/list:1.0", "--all-platforms"))
            pulled.append(pull(f"{base}/app/single@{registry.digest('app/single')}"))
            listed = ctr("images", "ls", "-q").split()
            expect(set(pulled) <= set(listed), f"an image is not there: {listed}")
            expect(registry.digest("app/multi") in ctr("images", "ls"), "the index has another digest")
        few_requests(case, registry, phase, mark)
        marked = [request.target for request in registry.origin.requests() if "ns=" in request.target]
        expect(not marked, f"the parameter ns went upstream: {marked[:3]}")

    case.phases(use)


def scopeless(case):
    """containerd and a registry whose challenges name no scope: it asks for a token to pull the image, and so does larder."""
    login = Tokens(named=False, scoped=False)
    registry = Registry(case, login=login)
    case.serve({"images": remote(registry)})
    base = prefix(case, registry)
    host = base.partition("/")[0]

    def use(home, phase):
        hosts = home / "hosts" / host
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(f'server = "http://{host}"\n[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n')
        mark = registry.origin.mark()
        with containerd(home) as ctr:
            for image in ("multi", "big"):
                name = f"{base}/app/{image}:1.0"
                ctr("images", "pull", "--hosts-dir", hosts.parent, "--snapshotter", "native", name)
                expect(registry.digest(f"app/{image}") in ctr("images", "ls", f"name=={name}"), "the image has another digest")
        few_requests(case, registry, phase, mark)
        expect_equal("scopes", set(login.asked), {"repository:app/multi:pull", "repository:app/big:pull"})

    case.phases(use)


def namespaces(case):
    """containerd with one hosts.toml for all registries: larder chooses by `?ns=`, among two registries."""
    registries = [Registry(case, name) for name in ("one", "two")]
    case.needs_larder()
    case.serve({registry.origin.name: remote(registry) for registry in registries})

    def use(home, phase):
        hosts = home / "hosts"
        (hosts / "_default").mkdir(parents=True)
        # `server` too: nothing gets past larder unseen.
        default = f'server = "{case.listens_at}"\n[host."{case.listens_at}"]\n  capabilities = ["pull", "resolve"]\n'
        (hosts / "_default" / "hosts.toml").write_text(default)
        with containerd(home) as ctr:
            # Different images: containerd does not ask twice for what it has.
            for registry, name in zip(registries, ("app/big", "app/multi"), strict=True):
                mark = registry.origin.mark()
                image = f"{registry.origin.host}/{name}:1.0"
                ctr("images", "pull", "--hosts-dir", hosts, "--snapshotter", "native", image)
                expect(registry.digest(name) in ctr("images", "ls", f"name=={image}"), "the image has another digest")
                asked = {request.headers["User-Agent"].partition("/")[0] for request in registry.origin.requests(mark)}
                expect_equal("who asked the upstream", asked, {"larder"} if phase in ("cold", "warm") else set())
                few_requests(case, registry, phase, mark)

    case.phases(use)


def ranges(case):
    """What containerd 2.1 and later do with a cold layer: a head, then parallel open-ended ranges, each left after its part."""
    registry = Registry(case)
    case.needs_larder()
    registry.add("app/huge", noise(24_000_000, "huge"))
    case.serve({"images": remote(registry)})
    base = f"{case.listens_at}/v2/images/app/huge"
    layer = json.loads(registry.tags["app/huge", "1.0"][1])["layers"][0]
    size, count = layer["size"], 12
    step = -(-size // count)
    all_asked = threading.Event()
    served = registry.origin.respond

    def respond(request):
        # No byte of the layer comes before all parts have been asked for.
        if request.path.endswith(layer["digest"]):
            expect(all_asked.wait(20), "the ranges were not asked for side by side")
        return served(request)

    registry.origin.respond = respond

    def use(_, phase):
        mark = registry.origin.mark()
        sent = threading.Barrier(count, action=all_asked.set)

        def part(number):
            connection = http.client.HTTPConnection(case.listens_at.removeprefix("http://"), timeout=30)
            with contextlib.closing(connection):
                first = number * step
                asked = {"Range": f"bytes={first}-", "Accept-Encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"}
                connection.request("GET", f"/v2/images/app/huge/blobs/{layer['digest']}?ns={MIRRORED}", headers=asked)
                sent.wait(20)
                answer = connection.getresponse()
                expect_equal("status of a range", answer.status, 206)
                expect_equal("range", answer.headers["Content-Range"], f"bytes {first}-{size - 1}/{size}")
                expect_equal("coding", answer.headers["Content-Encoding"], None)
                return answer.read(step)

        head = ask(f"{base}/manifests/1.0?ns={MIRRORED}", "HEAD")
        digest = head.headers["Docker-Content-Digest"]
        expect_equal("digest of HEAD", digest, registry.digest("app/huge"))
        manifest = ask(f"{base}/manifests/{digest}", wanted=206, Range="bytes=0-")
        for name in ("Content-Type", "Content-Length", "Docker-Content-Digest"):
            expect_equal(f"{name} of HEAD", head.headers[name], manifest.headers[name])
        with ThreadPoolExecutor(count) as pool:
            body = b"".join(pool.map(part, range(count)))
        expect_equal("the layer's digest", "sha256:" + hashlib.sha256(body).hexdigest(), layer["digest"])
        if phase == "cold":
            seen = [(request.method, request.path.rsplit("/", 1)[1]) for request in registry.origin.requests(mark)]
            expect_equal("upstream", seen, [("HEAD", "1.0"), ("GET", digest), ("GET", layer["digest"])])
        few_requests(case, registry, phase, mark)

    case.phases(use)


CASES = {
    "oci-containerd": with_containerd,
    "oci-containerd-scopeless": scopeless,
    "oci-namespaces": namespaces,
    "oci-ranges": ranges,
}
