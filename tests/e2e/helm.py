"""Helm chart repositories with helm 4 and helm 3: relative and absolute links, charts on another host, signed charts, and an index behind
a redirect."""

import hashlib
import json

from archives import noise, tar_gz
from gpg import signer
from harness import ask, environment, expect, expect_equal, run, tool

CACHE = {"immutable_ttl": 0, "mutable_ttl": 0}


def chart_yaml(name, version, app_version):
    fields = {"apiVersion": "v2", "name": name, "version": version, "appVersion": app_version, "type": "application"}
    return "".join(f"{key}: {value}\n" for key, value in fields.items())


def chart(name, version, app_version='"1.0"', ballast=0):
    template = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-"
        + name
        + "\ndata:\n  version: {{ .Chart.Version | quote }}\n"
    )
    members = {
        f"{name}/Chart.yaml": chart_yaml(name, version, app_version),
        f"{name}/values.yaml": "replicas: 1\n",
        f"{name}/templates/config.yaml": template,
    }
    if ballast:
        members[f"{name}/files/ballast.bin"] = noise(ballast, name + version)
    return tar_gz(members)


class Upstream:
    """A chart repository below a path, and another host that holds one of its charts."""

    def __init__(self, case, key):
        self.origin, self.elsewhere = case.origin(), case.origin("elsewhere")
        self.charts = {}
        self._entries = {}
        # Relative, in the index's folder and below it; absolute, on the same host; with a `+`; on another host.
        self._add("demo", "0.1.0", "demo-0.1.0.tgz")
        self._add("demo", "0.2.0", "signed/demo-0.2.0.tgz", key=key)
        self._add("demo", "0.3.0-rc.1", f"{self.origin.url}/charts/demo-0.3.0-rc.1.tgz")
        self._add("demo", "0.2.1+build.5", "demo-0.2.1+build.5.tgz")
        self._add("common", "1.0.0", f"{self.origin.url}/charts/common-1.0.0.tgz", ballast=900_000)
        self._add("remote", "1.0.0", f"{self.elsewhere.url}/downloads/remote-1.0.0.tgz")
        self.index = self._index()
        self.publish(self.index)

    def publish(self, index):
        self.origin.put("/charts/index.yaml", index, "text/yaml")

    def index_before(self, name):
        """The index before the last version of that chart was published."""
        entries = {**self._entries, name: self._entries[name][:-1]}
        return self._index(entries)

    @property
    def url(self):
        return f"{self.origin.url}/charts"

    def _add(self, name, version, link, *, key=None, ballast=0):
        body = chart(name, version, ballast=ballast)
        self.charts[f"{name}-{version}"] = body
        digest = hashlib.sha256(body).hexdigest()
        self._entries.setdefault(name, []).append((version, link, digest))
        url = link if link.startswith("http") else f"{self.url}/{link}"
        host = self.elsewhere if url.startswith(self.elsewhere.url) else self.origin
        path = url.removeprefix(host.url)
        host.put(path, body, "application/gzip", immutable=True)
        if key:
            signed = chart_yaml(name, version, '"1.0"') + f"\n...\nfiles:\n  {name}-{version}.tgz: sha256:{digest}\n"
            host.put(path + ".prov", key.clearsign(signed), "text/plain", immutable=True)

    def _index(self, entries=None):
        """Written as publishers do: comments, every style of scalar, an unusual order of keys."""
        lines = ["# kept as it is", "apiVersion: v1", "generated: 2024-01-02T03:04:05.000000Z", "entries:"]
        for name, versions in (entries or self._entries).items():
            lines.append(f"  {name}:")
            for version, link, digest in versions:
                lines += [
                    f"  - urls: # where it is\n      - {link}",
                    f"    name: {name}\n    version: {version}\n    apiVersion: v2",
                    "    appVersion: '1.10' # a number without its quotes",
                    '    annotations: {answer: \'yes\', "day": "2024-01-02"}',
                    "    description: |\n      text with urls:\n        - not/a/link.tgz",
                    f"    created: 2024-01-02T03:04:05.000000Z\n    digest: {digest}",
                ]
        return "\n".join(lines) + "\n"


class Helm:
    def __init__(self, program, home):
        self.home = home
        self._program = program
        folders = {f"HELM_{kind.upper()}_HOME": str(home / kind) for kind in ("config", "cache", "data")}
        self._environment = environment(home, HELM_REGISTRY_CONFIG=str(home / "registry.json"), **folders)

    def __call__(self, *arguments, cwd=None, fails=False):
        return run([tool(self._program), *arguments], cwd=cwd or self.home, env=self._environment, fails=fails)


def helm(program):
    def use_helm(case):
        with signer(case) as key:
            upstream = Upstream(case, key)
            keyring = key.public_key(armored=False)
        serve(case, upstream)
        base = case.repository("charts")
        straight = searched(Helm(program, case.home()), upstream.url)

        def use(home, _):
            do = Helm(program, home)
            expect_equal("helm search, beside the one without larder", searched(do, base), straight)
            do("repo", "update")
            for name, version in (
                ("demo", "0.1.0"),
                ("demo", "0.3.0-rc.1"),
                ("demo", "0.2.1+build.5"),
                ("common", "1.0.0"),
                ("remote", "1.0.0"),
            ):
                pulled(do, upstream, f"pantry/{name}", version)
            verified = do("pull", "pantry/demo", "--version", "0.2.0", "--verify", "--keyring", keyring)
            expect("Chart Hash Verified: sha256:" in verified, f"helm pull --verify did not verify:\n{verified}")
            expect(
                (home / "demo-0.2.0.tgz").read_bytes() == upstream.charts["demo-0.2.0"], "the verified chart differs"
            )
            (home / "by-url").mkdir()
            do("pull", "demo", "--repo", base, "--version", "0.1.0", "-d", home / "by-url")
            expect(
                "version: 0.2.1+build.5" in do("show", "chart", "pantry/demo"), "helm show chart gave another version"
            )
            rendered = do("template", "release", "pantry/demo", "--version", "0.1.0")
            expect('version: "0.1.0"' in rendered, f"helm template gave:\n{rendered}")
            dependency_update(do, upstream, base)

        case.phases(use)

    return use_helm


def newer_chart(program):
    """helm knows a version from its own copy of the index; larder's copy, still fresh, is from before it was published."""

    def use_helm(case):
        with signer(case) as key:
            upstream = Upstream(case, key)
        serve(case, upstream, {"immutable_ttl": 0, "mutable_ttl": 86_400})
        base, do = case.repository("charts"), Helm(program, case.home())
        do("repo", "add", "pantry", base)
        last = "demo-0.2.1+build.5"
        if not case.direct:
            case.flush()
            upstream.publish(upstream.index_before("demo"))
            expect("build.5" not in ask(f"{base}/index.yaml").body.decode(), "this is not the index of before")
            upstream.publish(upstream.index)
            # Bytes that nobody vouches for must not come in through the gap.
            upstream.origin.put(f"/charts/{last}.tgz", b"other bytes", "application/gzip", immutable=True)
            ask(f"{base}/{last}.tgz", wanted=502)
            upstream.origin.put(f"/charts/{last}.tgz", upstream.charts[last], "application/gzip", immutable=True)
        pulled(do, upstream, "pantry/demo", "0.2.1+build.5")

    return use_helm


def serve(case, upstream, cache=CACHE):
    entry = {
        "base_url": upstream.url,
        "type": "remote",
        "package": "helm",
        "immutable_patterns": ["\\.tgz$"],
        "allow_private": [upstream.elsewhere.host],
        "cache": cache,
    }
    case.serve({"charts": entry})


def redirected(program):
    """An index that is somewhere else, with links that climb: Helm resolves them against the repository URL that it is configured with."""

    def use_helm(case):
        origin = case.origin()
        entries, charts = [], {}
        for version, link, path in (
            ("1.0.0", "demo-1.0.0.tgz", "/charts/demo-1.0.0.tgz"),
            ("2.0.0", "../other/demo-2.0.0.tgz", "/other/demo-2.0.0.tgz"),
            ("3.0.0", "./sub/../demo-3.0.0.tgz", "/charts/demo-3.0.0.tgz"),
            ("4.0.0", "with space/demo-4.0.0.tgz", "/charts/with space/demo-4.0.0.tgz"),
        ):
            body = charts[version] = chart("demo", version)
            origin.put(path, body, "application/gzip", immutable=True)
            digest = hashlib.sha256(body).hexdigest()
            entries.append(
                f"  - name: demo\n    version: {version}\n    apiVersion: v2\n    digest: {digest}\n    urls:\n    - {link}\n"
            )
        origin.put("/moved/deep/index.yaml", f"apiVersion: v1\nentries:\n  demo:\n{''.join(entries)}", "text/yaml")
        origin.redirect("/charts/index.yaml", f"{origin.url}/moved/deep/index.yaml")
        entry = {"base_url": f"{origin.url}/charts", "type": "remote", "package": "helm", "cache": CACHE}
        case.serve({"charts": entry})

        def use(home, _):
            do = Helm(program, home)
            do("repo", "add", "pantry", case.repository("charts"))
            for version, body in charts.items():
                do("pull", "pantry/demo", "--version", version)
                expect((home / f"demo-{version}.tgz").read_bytes() == body, f"demo {version} differs from the upstream's")

        case.phases(use)

    return use_helm


def searched(do, url):
    """What helm reads out of the index: every chart and version, with the scalars as helm understands them."""
    do("repo", "add", "pantry", url)
    found = json.loads(do("search", "repo", "pantry/", "--versions", "--devel", "-o", "json"))
    expect_equal("number of versions found", len(found), 6)
    return found


def pulled(do, upstream, name, version):
    do("pull", name, "--version", version)
    file = f"{name.rpartition('/')[2]}-{version}"
    expect(
        (do.home / f"{file}.tgz").read_bytes() == upstream.charts[file], f"{file}.tgz differs from the upstream's chart"
    )


def dependency_update(do, upstream, base):
    app = do.home / "app"
    app.mkdir()
    dependency = f'dependencies:\n- name: common\n  version: ^1.0.0\n  repository: "{base}"\n'
    (app / "Chart.yaml").write_text(chart_yaml("app", "0.1.0", "1") + dependency)
    do("dependency", "update", app)
    fetched = (app / "charts" / "common-1.0.0.tgz").read_bytes()
    expect(fetched == upstream.charts["common-1.0.0"], "helm dependency update fetched another chart")


def index_bytes(case):
    """Byte for byte: only the text of the links may differ, and every link leads into larder."""
    with signer(case) as key:
        upstream = Upstream(case, key)
    serve(case, upstream)
    case.needs_larder()
    base = case.repository("charts")

    def use(_, phase):
        text = ask(f"{base}/index.yaml").body.decode()
        pairs = list(zip(upstream.index.splitlines(), text.splitlines(), strict=True))
        changed = [(before, after) for before, after in pairs if before != after]
        links = [before for before, _ in pairs if before.startswith("      - ")]
        expect_equal("lines that differ", [before for before, _ in changed], links)
        for _, after in changed:
            expect(after.startswith(f"      - {base}/"), f"a link leads past larder: {after}")
        if phase == "cold":
            ask(f"{base}/demo-0.1.0.tgz")
        outside = next(after.split("- ", 1)[1] for before, after in changed if upstream.elsewhere.url in before)
        expect(ask(outside).body == upstream.charts["remote-1.0.0"], "the chart of the other host differs")
        refused(outside)

    case.phases(use)


def refused(link):
    """A link to another host with one byte of its signature changed must not be followed."""
    before, mark, rest = link.partition("/_ext/")
    expect(mark, f"a link to another host has no /_ext/: {link}")
    forged = before + mark + ("A" if rest[0] != "A" else "B") + rest[1:]
    ask(forged, wanted=403)


CASES = {
    "helm-helm4": helm("helm4"),
    "helm-helm3": helm("helm3"),
    "helm-newer-chart-helm4": newer_chart("helm4"),
    "helm-newer-chart-helm3": newer_chart("helm3"),
    "helm-helm4-redirected": redirected("helm4"),
    "helm-helm3-redirected": redirected("helm3"),
    "helm-index-bytes": index_bytes,
}
