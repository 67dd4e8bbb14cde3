"""`larder warm`: what a lock file names is fetched beforehand; then the upstream is gone, and the real client installs from the lock file.

Each case makes its lock file with the real client through larder, makes larder forget all that it holds, warms it from the lock file, stops
the upstreams, and installs with empty client caches. Of the upstream each immutable file is asked for once, while it is warmed.
"""

import json
import shutil

import alpine
import npm
import oci
import pypi
import rpm
from alpine_packages import ARCH, BRANCH
from gpg import signer
from harness import Failed, ask, check_requests, environment, expect, expect_equal, run, tool
from helm import Helm, Upstream, chart_yaml
from helm import serve as serve_charts
from oci_containerd import containerd
from oci_images import Registry
from rpm_packages import pantry


def warm(case, repository, *files, formats=()):
    """Warms larder, which holds nothing, and takes the upstreams away; gives what the command says as JSON."""
    case.needs_larder()
    case.flush()
    marks = [origin.mark() for origin in case.origins()]
    command = [case.binary, "warm", "--repository", repository, *formats, "--server", case.listens_at, "--json", *files]
    told = json.loads(run(command, cwd=case.directory, env={}))
    expect_equal("what could not be fetched", told["failed"], [])
    asked = [request for origin, mark in zip(case.origins(), marks, strict=True) for request in origin.requests(mark)]
    check_requests("cold", asked, revalidates=True)
    expect(told["cached"] > 0 and told["bytes"] > 0, f"warm says that it fetched nothing: {told}")
    for origin in case.origins():
        origin.stop()
    return told


def without(case, use):
    """The same with nothing warmed: it shows that what has succeeded came from what was."""
    case.flush()
    try:
        use()
    except Failed:
        return
    raise Failed("it succeeds with an upstream that is away and a larder that holds nothing")


def passing_on(lock, project):
    """The lock file where a new client finds it."""
    return shutil.copy(lock, project / lock.name)


# --- Python ----------------------------------------------------------------------------------------------------------------


def uv_lock(case, home):
    do = pypi.Uv(home, pypi.simple(case))
    do("lock")
    return do.project / "uv.lock"


def requirements(case, home):
    do = pypi.Uv(home, pypi.simple(case))
    (do.project / "in.txt").write_text("pantry-demo\npantry.dotted-name\n")
    index = ["--default-index", pypi.simple(case), "--no-config"]
    do("pip", "compile", *index, "--universal", "--generate-hashes", "in.txt", "-o", "requirements.txt")
    return do.project / "requirements.txt"


def pylock(case, home):
    do = pypi.Uv(home, pypi.simple(case))
    do("lock")
    do("export", "--frozen", "--no-emit-project", "--format", "pylock.toml", "-o", "pylock.toml")
    return do.project / "pylock.toml"


def from_uv_lock(upstream):
    def use(case):
        upstream(case)
        lock = uv_lock(case, case.home())
        warm(case, "pypi", lock)
        do = pypi.Uv(case.home(), pypi.simple(case))
        passing_on(lock, do.project)
        do("sync", "--frozen")
        python = do.project / ".venv" / "bin" / "python"
        expect_equal("uv sync installed", do.version_of("pantry_demo", python), "1.1")
        expect_equal("uv sync built", do.version_of("pantry_source", python), "1.0")

    return use


def from_requirements(upstream):
    def use(case):
        upstream(case)
        lock = requirements(case, case.home())
        warm(case, "pypi", lock)
        home = case.home()
        do = pypi.Pip(home, pypi.simple(case))
        do("install", "--target", home / "site", "--require-hashes", "-r", lock)
        expect_equal("pip installed", do.version_of("pantry_demo", home / "site"), "1.1")
        expect_equal("and its dependency", do.version_of("pantry_base", home / "site"), "1.0")

    return use


def from_pylock(case):
    pypi.json_and_html(case)
    lock = pylock(case, case.home())
    warm(case, "pypi", lock)
    do = pypi.Uv(case.home(), pypi.simple(case))
    passing_on(lock, do.project)
    do("venv", "-q", "v")
    do("pip", "sync", "--python", do.project / "v/bin/python", "--default-index", pypi.simple(case), "pylock.toml")
    expect_equal("uv pip sync installed", do.version_of("pantry_demo", do.project / "v/bin/python"), "1.1")


# --- npm -------------------------------------------------------------------------------------------------------------------


def npm_lock(client, install, lock_file):
    def make(case, home):
        project = npm.Project(home, case.repository("npm"))
        project(client, *install)
        return project.path / lock_file

    return make


def from_npm_lock(client, install, frozen, lock_file):
    def use(case):
        npm.serve(case)
        lock = npm_lock(client, install, lock_file)(case, case.home())
        told = warm(case, "npm", lock)
        expect_equal("files", told["cached"], len(npm.INSTALLED.split()))
        project = npm.Project(case.home(), case.repository("npm"))
        passing_on(lock, project.path)
        project(client, *frozen)
        expect_equal("installed from the lock file", project.installed(), npm.INSTALLED)

    return use


def npm_version(number):
    install, frozen, lock_file = npm.CLIENTS["npm"]
    return [*install, f"--lockfile-version={number}"], frozen, lock_file


# --- Helm ------------------------------------------------------------------------------------------------------------------


def chart_folder(home, base):
    app = home / "app"
    app.mkdir()
    dependencies = "".join(
        f'- name: {name}\n  version: {version}\n  repository: "{base}"\n'
        for name, version in (("common", "^1.0.0"), ("demo", "0.2.1+build.5"), ("remote", "1.0.0"))
    )
    (app / "Chart.yaml").write_text(chart_yaml("app", "0.1.0", "1") + f"dependencies:\n{dependencies}")
    return app


def chart_lock(program):
    def make(case, home):
        app = chart_folder(home, case.repository("charts"))
        Helm(program, home)("dependency", "update", app)
        return app / "Chart.lock"

    return make


def from_chart_lock(program):
    def use(case):
        with signer(case) as key:
            upstream = Upstream(case, key)
        serve_charts(case, upstream)
        lock = chart_lock(program)(case, case.home())
        told = warm(case, "charts", lock)
        expect_equal("charts", told["cached"], 3)
        home = case.home()
        app, do = chart_folder(home, case.repository("charts")), Helm(program, home)
        passing_on(lock, app)
        do("repo", "add", "pantry", case.repository("charts"))
        do("dependency", "build", app)
        for file in ("common-1.0.0", "demo-0.2.1+build.5", "remote-1.0.0"):
            got = (app / "charts" / f"{file}.tgz").read_bytes()
            expect(got == upstream.charts[file], f"helm dependency build fetched another {file}")

    return use


# --- images and files ------------------------------------------------------------------------------------------------------


def from_images(case):
    case.needs_larder()
    registry = Registry(case)
    case.serve({"images": oci.remote(registry)})
    base = oci.prefix(case, registry)
    lines = [
        "# what the cluster runs",
        "app/multi:1.0",
        f"{base}/app/single:1.0 # under larder's name",
        f"{registry.origin.host}/app/zstd@{registry.digest('app/zstd')}",
        "app/list:1.0",
    ]
    (case.directory / "images.txt").write_text("\n".join([*lines, ""]))
    warm(case, "images", case.directory / "images.txt")
    do = oci.Containers(case.home(), insecure=[base.partition("/")[0]])
    oci.copied(do, registry, base, "app/single", ":1.0", "--preserve-digests")
    oci.copied(do, registry, base, "app/zstd", "@" + registry.digest("app/zstd"))
    # All platforms are there.
    for image in ("app/multi", "app/list"):
        oci.copied(do, registry, base, image, ":1.0", "--all", "--preserve-digests")


def from_images_with_containerd(case):
    """What a cluster pulls: containerd finds the images under larder's name, with nothing in its own store."""
    case.needs_larder()
    registry = Registry(case)
    case.serve({"images": oci.remote(registry)})
    base = oci.prefix(case, registry)
    host = base.partition("/")[0]
    images = [f"{base}/app/{name}:1.0" for name in ("multi", "zstd", "big")]
    images.append(f"{base}/app/single@{registry.digest('app/single')}")
    (case.directory / "images.txt").write_text("\n".join([*images, ""]))
    warm(case, "images", case.directory / "images.txt")

    def pull():
        home = case.home()
        hosts = home / "hosts" / host
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(f'server = "http://{host}"\n[host."http://{host}"]\n  capabilities = ["pull", "resolve"]\n')
        with containerd(home) as ctr:
            for image in images:
                ctr("images", "pull", "--hosts-dir", hosts.parent, "--snapshotter", "native", image)
            listed = ctr("images", "ls")
            expect(registry.digest("app/multi") in listed, f"the index has another digest:\n{listed}")

    pull()
    without(case, pull)


def from_apk_urls(case):
    """A branch of Alpine's: the index and the packages that are listed, and no others, are there for a machine with nothing."""
    case.needs_larder()
    upstream = alpine.Upstream(case)
    base = alpine.serve(case, upstream)
    folder = f"{upstream.origin.url}/{BRANCH}/{ARCH}"
    left_out = ("bulky-1.0-r0.apk", "plain-1.0-r0.apk")
    names = [name for name in sorted(upstream.packages) if name not in left_out]
    lines = [f"{folder}/APKINDEX.tar.gz", *(f"{folder}/{name}" for name in names)]
    (case.directory / "urls.txt").write_text("\n".join([*lines, ""]))
    told = warm(case, "alpine", case.directory / "urls.txt")
    expect_equal("files", told["cached"], len(lines))

    def install():
        apk = alpine.Apk(case.home(), upstream, base)
        apk("update")
        apk("add", "curl", "gtk+3.0", "g++", "demo")
        return apk

    apk = install()
    expect(apk.runs("usr/bin/curl", "--version").startswith("curl 8."), "the installed curl does not run")
    expect_equal("the file of libstdc++", apk.version_of("libstdc++"), b"odd\n")
    apk("add", "bulky", fails=True)
    without(case, install)


def from_urls(case):
    case.needs_larder()
    origin = case.origin()
    case.serve({"files": {"base_url": f"{origin.url}/pool", "type": "remote", "package": "generic"}})
    bodies = {f"dir/file {number}+%.bin": f"bytes {number}".encode() * 1000 for number in range(20)}
    encoded = {path: path.replace("%", "%25").replace(" ", "%20") for path in bodies}
    for path, body in bodies.items():
        origin.put(f"/pool/{path}", body, immutable=True)
    paths = list(bodies)
    lines = [f"{origin.url}/pool/{encoded[path]}" for path in paths[:8]]
    lines += [f"{case.repository('files')}/{encoded[path]}" for path in paths[8:16]]
    lines += paths[16:]
    (case.directory / "urls.txt").write_text("\n".join([*lines, ""]))
    told = warm(case, "files", case.directory / "urls.txt")
    expect_equal("files", told["cached"], 20)
    home = case.home()
    for path, body in bodies.items():
        url = f"{case.repository('files')}/{encoded[path]}"
        run([tool("curl"), "-fsS", "-o", "got", url], cwd=home, env=environment(home))
        expect((home / "got").read_bytes() == body, f"{path} differs from the upstream's")


def from_rpm_paths(case):
    """Packages alone are listed: the metadata that dnf finds them by comes along."""
    case.needs_larder()
    with signer(case) as key:
        repository = pantry(case, key)
        public = key.public_key(armored=True)
        repository.publish(rpm.serve(case))
    offered = f"{case.listens_at}/api/v1/artifacts/rpms?source=upstream&name=el9&limit=1000"
    paths = [offer["path"] for offer in json.loads(ask(offered).body)["artifacts"]]
    expect(len(paths) > 2 and all(path.endswith(".rpm") for path in paths), f"the upstream offers {paths}")
    (case.directory / "urls.txt").write_text("\n".join([*paths, ""]))
    told = warm(case, "rpms", case.directory / "urls.txt")
    expect_equal("packages", told["cached"], len(paths))
    do = rpm.Dnf(case.home(), case.repository("rpms"), public)
    do("install", "pantry-jam", "pantry-libstdc++")
    installed = {name: do.installed(name) for name in ("pantry-jam", "pantry-data", "pantry-libstdc++")}
    wanted = {"pantry-jam": "1.0", "pantry-data": "1.0", "pantry-libstdc++": "2.0~rc1^git1"}
    expect_equal("what dnf installed", installed, wanted)


CASES = {
    "warm-uv-lock": from_uv_lock(pypi.json_and_html),
    "warm-uv-lock-html": from_uv_lock(pypi.html_only),
    "warm-requirements": from_requirements(pypi.json_and_html),
    "warm-requirements-html": from_requirements(pypi.html_only),
    "warm-pylock": from_pylock,
    **{f"warm-package-lock-{number}": from_npm_lock("npm", *npm_version(number)) for number in (1, 2, 3)},
    "warm-pnpm-lock": from_npm_lock("pnpm", *npm.CLIENTS["pnpm"]),
    "warm-yarn-1": from_npm_lock("yarn1", *npm.CLIENTS["yarn1"]),
    "warm-yarn-4": from_npm_lock("yarn4", *npm.CLIENTS["yarn4"]),
    "warm-bun": from_npm_lock("bun", *npm.CLIENTS["bun"]),
    "warm-chart-lock-helm4": from_chart_lock("helm4"),
    "warm-chart-lock-helm3": from_chart_lock("helm3"),
    "warm-images": from_images,
    "warm-images-containerd": from_images_with_containerd,
    "warm-apk-urls": from_apk_urls,
    "warm-urls": from_urls,
    "warm-rpm-urls": from_rpm_paths,
}
