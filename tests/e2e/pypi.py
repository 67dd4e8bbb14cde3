"""PyPI with pip and uv, from an upstream that speaks HTML only and from one that speaks JSON too."""

import io
import json
import re
import time
import zipfile

from harness import TOOLS, Failed, ask, environment, expect, expect_equal, run, tool
from pypi_packages import JSON, before, normalized, projects, serve_html_only, serve_json

CACHE = {"immutable_ttl": 0, "mutable_ttl": 0}
FILES = {file.name: file for files in projects().values() for file in files}
DEMO = FILES["pantry_demo-1.1-py3-none-any.whl"]


def html_only(case, cache=CACHE):
    origin = case.origin()
    serve_html_only(origin)
    case.serve({"pypi": {"base_url": origin.url, "type": "remote", "package": "pypi", "cache": cache}})
    return origin


def json_and_html(case, cache=CACHE):
    index, files_host = case.origin("index"), case.origin("files")
    serve_json(index, files_host)
    entry = {
        "base_url": files_host.url,
        "index_url": f"{index.url}/simple",
        "type": "remote",
        "package": "pypi",
        "cache": cache,
    }
    case.serve({"pypi": entry}, bases={"pypi": index.url})
    return files_host


LONG = {"immutable_ttl": 0, "mutable_ttl": 86_400}


def html_only_republished(case):
    origin = html_only(case, LONG)
    return origin, lambda published=None: serve_html_only(origin, published)


def json_and_html_republished(case):
    files_host = json_and_html(case, LONG)
    index = next(origin for origin in case.origins() if origin is not files_host)
    return files_host, lambda published=None: serve_json(index, files_host, published)


def simple(case):
    return case.repository("pypi") + "/simple"


# --- pip -------------------------------------------------------------------------------------------------------------


class Pip:
    def __init__(self, home, index):
        self.home = home
        self._index = index
        self._environment = environment(
            home, PIP_CONFIG_FILE="/dev/null", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_RETRIES="0"
        )

    def __call__(self, command, *arguments, index=True, fails=False):
        always = ["--no-cache-dir", "--timeout", "20", *(["--index-url", self._index] if index else [])]
        return run([tool("pip"), command, *always, *arguments], cwd=self.home, env=self._environment, fails=fails)

    def version_of(self, module, directory):
        code = f"import {module}; print({module}.version)"
        python = [TOOLS / "py" / "bin" / "python", "-c", code]
        return run(python, cwd=self.home, env={**self._environment, "PYTHONPATH": str(directory)}).strip()


def pip(upstream):
    def use_pip(case):
        upstream(case)

        def use(home, _):
            do, site, got = Pip(home, simple(case)), home / "site", home / "got"
            # Not 1.2 (yanked), not 2.0rc1 (a pre-release), not 3.0 (wants another Python).
            do("install", "--target", site, "pantry-demo", "pantry.dotted-name")
            expect_equal("installed pantry-demo", do.version_of("pantry_demo", site), "1.1")
            expect_equal("installed its dependency", do.version_of("pantry_base", site), "1.0")
            expect_equal("installed the dotted name", do.version_of("pantry_dotted_name", site), "1.0")
            versions = do("index", "versions", "--pre", "--ignore-requires-python", "pantry-demo")
            expect("2.0rc1" in versions and "1.0" in versions, f"pip index versions lacks versions:\n{versions}")
            do("install", "--target", home / "built", "--no-binary", ":all:", "pantry-source")
            expect_equal("built from source", do.version_of("pantry_source", home / "built"), "1.0")
            downloaded(do, got, "pantry-demo==2.0rc1", "pantry_demo-2.0rc1-py3-none-any.whl")
            downloaded(do, got, "pantry-demo==1.2", "pantry_demo-1.2-py3-none-any.whl")
            downloaded(do, got, "pantry-local", "pantry_local-1.0+cu121-py3-none-any.whl")
            require_hashes(do, home)

        case.phases(use)

    return use_pip


def downloaded(do, directory, requirement, name):
    do("download", "--no-deps", "-d", directory, requirement)
    expect(
        (directory / name).exists(), f"pip download {requirement} gave {[path.name for path in directory.iterdir()]}"
    )
    expect((directory / name).read_bytes() == FILES[name].body, f"{name} differs from the upstream's file")


def require_hashes(do, home):
    wanted = home / "requirements.txt"
    wanted.write_text(f"pantry-demo==1.1 --hash=sha256:{DEMO.digest}\n")
    do("install", "--target", home / "hashed", "--no-deps", "--require-hashes", "-r", wanted)


def pip_lazy_wheel(case):
    """pip reads the metadata out of a wheel with HEAD and Range requests when the index has no metadata files."""
    origin = html_only(case)

    def use(home, phase):
        mark = origin.mark()
        do = Pip(home, simple(case))
        do("install", "--use-feature=fast-deps", "--target", home / "site", "pantry-demo")
        expect_equal("installed", do.version_of("pantry_demo", home / "site"), "1.1")
        if phase == "cold":
            heads = [request for request in origin.requests(mark) if request.method == "HEAD" and request.immutable]
            expect(heads, "pip asked for no HEAD: this case tests nothing")

    case.phases(use)


# --- uv --------------------------------------------------------------------------------------------------------------


class Uv:
    def __init__(self, home, index):
        self.home = home
        self.project = home / "project"
        self.project.mkdir()
        more = {
            "UV_CACHE_DIR": str(home / "uv-cache"),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_PYTHON": str(TOOLS / "py" / "bin" / "python"),
            "UV_HTTP_TIMEOUT": "20",
            "UV_HTTP_RETRIES": "0",
            "UV_NO_PROGRESS": "1",
        }
        self._environment = environment(home, **more)
        dependencies = '["pantry-demo", "pantry.dotted-name", "pantry-source"]'
        lines = [
            "[project]",
            'name = "app"',
            'version = "0"',
            'requires-python = ">=3.9"',
            f"dependencies = {dependencies}",
        ]
        lines += ["[[tool.uv.index]]", 'name = "pantry"', f'url = "{index}"', "default = true", ""]
        (self.project / "pyproject.toml").write_text("\n".join(lines))

    def __call__(self, *arguments, fails=False):
        return run([tool("uv"), *arguments], cwd=self.project, env=self._environment, fails=fails)

    def forget(self):
        """Drops uv's cache, so that the next command asks for everything again."""
        run(["rm", "-rf", self.home / "uv-cache"], cwd=self.home, env=self._environment)

    def version_of(self, module, python):
        return run(
            [python, "-c", f"import {module}; print({module}.version)"], cwd=self.home, env=self._environment
        ).strip()


def uv(upstream, *, reads_wheels):
    """`reads_wheels`: the upstream has no metadata files, so that uv reads into wheels with HEAD and Range."""

    def use_uv(case):
        origin = upstream(case)
        lock = {}

        def use(home, phase):
            mark = origin.mark()
            do, index = Uv(home, simple(case)), simple(case)
            do("lock")
            text = (do.project / "uv.lock").read_text()
            check_lock(case, text)
            expect_equal("uv.lock", text, lock.setdefault("text", text))
            if phase == "cold" and reads_wheels:
                heads = [request for request in origin.requests(mark) if request.method == "HEAD" and request.immutable]
                expect(heads or case.direct, "uv asked for no HEAD of a wheel: this case tests no ranges")
            do.forget()
            do("sync", "--frozen")
            python = do.project / ".venv" / "bin" / "python"
            expect_equal("uv sync installed", do.version_of("pantry_demo", python), "1.1")
            expect_equal("uv sync built", do.version_of("pantry_source", python), "1.0")
            do.forget()
            do("venv", "-q", home / "venv")
            into = ["pip", "install", "--python", home / "venv" / "bin" / "python", "--default-index", index]
            do(*into, "pantry-demo==2.0rc1", "pantry-local")
            expect_equal("uv pip installed", do.version_of("pantry_demo", home / "venv" / "bin" / "python"), "2.0rc1")
            if not reads_wheels:
                # Only works if the index still says when files were uploaded.
                do(*into, "--exclude-newer", "2021-01-01", "--reinstall", "pantry-demo", "--no-deps")
                old = do.version_of("pantry_demo", home / "venv" / "bin" / "python")
                expect_equal("uv --exclude-newer installed", old, "1.0")

        case.phases(use)

    return use_uv


def uv_believes_ages(case):
    """uv asks for nothing while a copy that larder has held for most of its life is fresh.

    uv's own cache counts as RFC 9111 says: of `max-age` what `Age` says has passed already. Without larder, from an index that says
    `max-age=600`, the second and the third run ask for nothing; so they must through larder, in the second half of a copy's life too.
    """
    case.needs_larder()
    for life in (24, 96):
        if asks_once(case, f"pypi{life}", life):
            return
    raise Failed("three runs of uv took longer than half of a copy's life: nothing is shown")


def asks_once(case, name, life):
    """Whether three runs of uv came within what is left of a copy's life after three fifths of it."""
    origin = case.origin(name)
    serve_json(origin, origin)
    entry = {"base_url": origin.url, "type": "remote", "package": "pypi"}
    case.serve({name: {**entry, "cache": {"immutable_ttl": 0, "mutable_ttl": life}}})
    index = f"{case.repository(name)}/simple"
    do = Uv(case.home(), index)
    begun = time.monotonic()
    # Fills larder, and not the cache of the runs that count.
    do("lock", "--refresh")
    do.forget()
    time.sleep(life * 0.6)
    counts = []
    for _ in range(3):
        (do.project / "uv.lock").unlink()
        do("lock")
        counts.append(requests_at(case, name))
    case.stop_larder()
    if time.monotonic() - begun > life - 1:
        return False
    expect(counts[0] > 0, "uv asked for nothing at all: are requests counted?")
    expect_equal("requests at larder after each of three runs", counts, [counts[0]] * 3)
    return True


def requests_at(case, name):
    """How many requests larder has answered of a repository."""
    lines = ask(case.listens_at + "/metrics").body.decode().splitlines()
    counted = [line for line in lines if line.startswith(f'larder_requests_total{{repository="{name}"')]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in counted)


def uv_newer_lock(upstream):
    """A lock file that is newer than the pages that larder holds, fresh: it was made where the new files are known."""

    def use_uv(case):
        files_host, publish = upstream(case)
        do = Uv(case.home(), simple(case))
        do("lock")
        link = re.search(rf'url = "([^"]+/{re.escape(DEMO.name)})"', (do.project / "uv.lock").read_text()).group(1)
        if not case.direct:
            case.flush()
            publish(before())
            for name in before():
                held = ask(f"{simple(case)}/{normalized(name)}/").body.decode()
                expect("-0.1-" in held and DEMO.name not in held, f"this is not the page of before:\n{held}")
        publish()
        if not case.direct:
            # Bytes that nobody vouches for must not come in through the gap.
            path = link.removeprefix(case.repository("pypi"))
            files_host.put(path, b"other bytes", immutable=True)
            ask(link, wanted=502)
            publish()
        do.forget()
        do("sync", "--frozen")
        python = do.project / ".venv" / "bin" / "python"
        expect_equal("uv sync installed", do.version_of("pantry_demo", python), "1.1")
        expect_equal("uv sync built", do.version_of("pantry_source", python), "1.0")

    return use_uv


def check_lock(case, text):
    urls = re.findall(r'url = "([^"]+)"', text)
    expect(any(url.endswith(DEMO.name) for url in urls), f"uv.lock does not name {DEMO.name}:\n{text}")
    expect(DEMO.digest in text, "uv.lock does not hold the wheel's digest")
    if not case.direct:
        elsewhere = [url for url in urls if not url.startswith(case.repository("pypi") + "/")]
        expect(not elsewhere, f"uv.lock leads past larder: {elsewhere}")


# --- what clients rely on, asked for directly --------------------------------------------------------------------------


def lazy_reads(case):
    """The reads that a lazy client makes of a wheel that larder does not hold: HEAD, then parts, then all of it."""
    html_only(case)

    def use(_, phase):
        url = case.repository("pypi") + "/" + ("files/" + DEMO.name)
        size = int(ask(url, method="HEAD").headers["Content-Length"])
        expect_equal("length by HEAD", size, len(DEMO.body))
        tail = ask(url, Range="bytes=-20000", wanted=206)
        expect_equal("its Content-Range", tail.headers["Content-Range"], f"bytes {size - 20000}-{size - 1}/{size}")
        # Zip readers need only the end, if what they ask for lies in it: the directory and the metadata do.
        expect(tail.body == DEMO.body[-20000:], "the suffix differs from the upstream's bytes")
        archive = zipfile.ZipFile(io.BytesIO(bytes(size - 20000) + tail.body))
        metadata = archive.read("pantry_demo-1.1.dist-info/METADATA")
        expect_equal("METADATA read out of the suffix", metadata, DEMO.metadata)
        expect(ask(url).body == DEMO.body, "the whole wheel differs")
        if not case.direct and phase != "cold":
            expect_equal("X-Artifact-Source", ask(url).headers["X-Artifact-Source"], "cache")

    case.phases(use, revalidates=False)


def both_forms(upstream):
    """Every project in HTML and in JSON, whatever the upstream speaks: same files, links inside larder, digests kept."""

    def use_both(case):
        upstream(case)
        case.needs_larder()

        def use(_, phase):
            if phase == "cold":
                ask(f"{case.repository('pypi')}{link_of(case, DEMO)}")
            for name, files in projects().items():
                url = f"{simple(case)}/{normalized(name)}/"
                as_html, as_json = ask(url, Accept="text/html"), ask(url, Accept=JSON)
                expect_equal("types", (as_html.type, as_json.type), ("text/html", JSON))
                text, detail = as_html.body.decode(), json.loads(as_json.body)
                expect_equal(
                    "file names in JSON", [file["filename"] for file in detail["files"]], [file.name for file in files]
                )
                for file, described in zip(files, detail["files"], strict=True):
                    expect_equal("digest in JSON", described["hashes"]["sha256"], file.digest)
                    expect(f"#sha256={file.digest}" in text, f"no digest of {file.name} in the HTML page")
                    expect(described["url"].startswith("/api/v1/remote/pypi/"), f"{described['url']} leads past larder")
                    expect_equal("yanked", bool(described.get("yanked", False)), file.yanked is not None)
                expect("http://127.0.0.1" not in text, f"the HTML page leads past larder:\n{text}")
            if phase in ("cold", "warm"):
                ask(f"{simple(case)}/no-such-project/", wanted=404)

        case.phases(use)

    return use_both


def link_of(case, file):
    detail = json.loads(ask(f"{simple(case)}/pantry-demo/", Accept=JSON).body)
    url = next(described["url"] for described in detail["files"] if described["filename"] == file.name)
    return url.removeprefix("/api/v1/remote/pypi")


CASES = {
    "pypi-html-pip": pip(html_only),
    "pypi-html-pip-lazy-wheel": pip_lazy_wheel,
    "pypi-html-uv": uv(html_only, reads_wheels=True),
    "pypi-newer-lock-html-uv": uv_newer_lock(html_only_republished),
    "pypi-newer-lock-json-uv": uv_newer_lock(json_and_html_republished),
    "pypi-html-ranges": lazy_reads,
    "pypi-html-both-forms": both_forms(html_only),
    "pypi-json-pip": pip(json_and_html),
    "pypi-json-uv": uv(json_and_html, reads_wheels=False),
    "pypi-json-uv-ages": uv_believes_ages,
    "pypi-json-both-forms": both_forms(json_and_html),
}
