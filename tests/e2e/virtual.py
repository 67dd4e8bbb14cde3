"""Virtual helm repositories with helm 4 and helm 3: several repositories behind one address, cold, warm, with one of them gone, with all of
them gone."""

import hashlib
import json

from harness import ask, expect, expect_equal
from helm import Helm, chart

CACHE = {"immutable_ttl": 0, "mutable_ttl": 0}


class Upstream:
    """A repository with charts of its own, in a style of its own."""

    def __init__(self, case, name, charts, write):
        self.origin = case.origin(name)
        self.charts = {}
        entries = []
        for title, version in charts:
            # What a chart is made of names the repository: equal versions of two repositories are told apart.
            body = self.charts[f"{title}-{version}"] = chart(title, version, app_version=f'"{name}"')
            self.origin.put(f"/charts/{title}-{version}.tgz", body, "application/gzip", immutable=True)
            entries.append((title, version, hashlib.sha256(body).hexdigest()))
        self.origin.put("/charts/index.yaml", write(entries), "text/yaml")

    def entry(self):
        return {"base_url": f"{self.origin.url}/charts", "type": "remote", "package": "helm", "cache": CACHE}


def block_style(entries):
    """As Helm writes it, with scalars that are no texts, and one entry that Helm refuses a whole index for."""
    lines = ["apiVersion: v1", "entries:"]
    for title in sorted({title for title, _, _ in entries}):
        lines.append(f"    {title}:")
        for _, version, digest in (entry for entry in entries if entry[0] == title):
            lines += [
                f"    - apiVersion: v2\n      appVersion: 1.10\n      created: \"2024-01-02T03:04:05Z\"\n      digest: {digest}",
                "      description: |\n          two\n            lines\n      annotations:\n        answer: yes\n        day: 2024-01-02",
                f"      name: {title}\n      urls:\n      - {title}-{version}.tgz\n      version: {version}",
            ]
    lines += ["    broken:", "    - name: broken\n      version: 1.0.0\n      no-such-key: 1\n      urls: []"]
    return "\n".join(lines) + '\ngenerated: "2024-01-02T03:04:05Z"\n'


def json_style(entries):
    """As some servers write it: JSON, with a key that Helm does not know, and numbers where texts belong."""
    charts = {}
    for title, version, digest in entries:
        entry = {"urls": [f"{title}-{version}.tgz"], "name": title, "version": version, "apiVersion": "v2", "digest": digest}
        entry |= {"description": 'tab\t "quoted" \U0001f600', "extra": {"size": 1}}
        charts.setdefault(title, []).append(entry)
    return json.dumps({"apiVersion": "v1", "entries": charts, "serverInfo": {"contextPath": "/nowhere"}})


def flow_style(entries):
    """YAML that nobody generates."""
    lines = ["%YAML 1.1", "---", "apiVersion: v1", "entries:"]
    for title, version, digest in entries:
        lines += [f"  ? {title}", f"  : [{{name: {title}, version: {version}, apiVersion: v2, urls: [{title}-{version}.tgz], digest: {digest}}}]"]
    return "\n".join(lines) + "\n"


def merged(program):
    def use_helm(case):
        case.needs_larder()
        one = Upstream(case, "one", [("vault", "0.27.0"), ("redis", "20.1.0"), ("redis", "19.0.0")], block_style)
        two = Upstream(case, "two", [("redis", "20.1.0"), ("redis", "20.2.0-rc.1"), ("redis", "20.0.0")], json_style)
        three = Upstream(case, "three", [("nginx", "1.2.3+build.4")], flow_style)
        members = {"one": one, "two": two, "three": three}
        remotes = {name: upstream.entry() for name, upstream in members.items()}
        remotes["all"] = {"type": "virtual", "package": "helm", "members": list(members)}
        case.serve(remotes)
        base = f"{case.listens_at}/api/v1/virtual/all"
        pulls = (
            ("vault", "0.27.0", one),
            ("redis", "20.1.0", one),
            ("redis", "19.0.0", one),
            ("redis", "20.2.0-rc.1", two),
            ("redis", "20.0.0", two),
            ("nginx", "1.2.3+build.4", three),
        )

        def use(what):
            do = Helm(program, case.home())
            do("repo", "add", "pantry", base)
            do("repo", "update")
            found = json.loads(do("search", "repo", "pantry/", "--versions", "--devel", "-o", "json"))
            listed = [(chart["name"], chart["version"]) for chart in found]
            # helm search sorts by name, and versions newest first.
            wanted = [
                ("pantry/nginx", "1.2.3+build.4"),
                ("pantry/redis", "20.2.0-rc.1"),
                ("pantry/redis", "20.1.0"),
                ("pantry/redis", "20.0.0"),
                ("pantry/redis", "19.0.0"),
                ("pantry/vault", "0.27.0"),
            ]
            expect_equal(f"[{what}] what helm finds", listed, wanted)
            vault = next(chart for chart in found if chart["name"] == "pantry/vault")
            expect_equal(f"[{what}] appVersion, as it stands", vault["app_version"], "1.10")
            expect_equal(f"[{what}] description", vault["description"].split(), ["two", "lines"])
            for title, version, upstream in pulls:
                do("pull", f"pantry/{title}", "--version", version)
                got = (do.home / f"{title}-{version}.tgz").read_bytes()
                expect(got == upstream.charts[f"{title}-{version}"], f"[{what}] {title} {version} is not {upstream.origin}'s")
            updated(do, base)

        use("cold")
        expect(case.log_lines("Helm does not know the key"), "nothing is said of the entry that was left out")
        use("warm")
        two.origin.stop()
        use("one member stopped")
        for upstream in (one, three):
            upstream.origin.stop()
        use("all stopped")
        answer = ask(f"{base}/index.yaml")
        expect("x-larder-skipped" not in {name.lower() for name in answer.headers}, "copies are no reason to skip a member")

    return use_helm


def updated(do, base):
    """helm dependency update takes charts of several members from one address."""
    project = do.home / "project"
    (project / "templates").mkdir(parents=True)
    dependencies = "".join(
        f"- name: {name}\n  version: {version}\n  repository: {base}\n" for name, version in (("redis", "^20.0.0"), ("vault", "0.x"))
    )
    (project / "Chart.yaml").write_text(
        f"apiVersion: v2\nname: project\nversion: 1.0.0\ndependencies:\n{dependencies}", encoding="utf-8"
    )
    do("dependency", "update", project)
    got = sorted(path.name for path in (project / "charts").iterdir())
    expect_equal("helm dependency update", got, ["redis-20.1.0.tgz", "vault-0.27.0.tgz"])


CASES = {"virtual-helm4": merged("helm4"), "virtual-helm3": merged("helm3")}
