"""The web interface in a real Chromium: every link of every page, with scripts and without, light and dark, wide and narrow; what a
screen reader needs; the keyboard alone; and texts that strangers choose, which must stay texts.

`LARDER_UI_PICTURES=directory` has pictures of the pages written there.
"""

import email.utils
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import sqlite3
import time
import urllib.parse
import urllib.request

import npm_packages
from archives import tar_gz
from harness import HERE, TOOLS, Missing, ask, environment, expect, run, tool
from oci_images import OCI_INDEX, OCI_MANIFEST
from origin import LAST_MODIFIED, Resource

TOKEN = "the-token-of-the-browser-test"
RECORDS = 100_000
MOST_BYTES = 150 * 1024
MOST_MS = 100
# CI's machine is shared, and what is measured there may be a debug build: the figure is printed, and only what is far off is a failure.
GENEROUS = 10

# What strangers may choose: paths, names, versions, descriptions, errors. `a49b` in a page: a template was evaluated.
CORPUS = (
    "<script>window.larderWasHere=1</script>",
    '"><img src=x onerror="window.larderWasHere=1">',
    "' autofocus onfocus='window.larderWasHere=1",
    "javascript:window.larderWasHere=1",
    "a{{7*7}}b a${7*7}b a<%= 7*7 %>b",
    "<b data-injected>bold</b>",
    "</title></textarea><svg onload=window.larderWasHere=1>",
    "\u202etxt.evil\u202c \u2066x",
    "&lt;b data-injected&gt; &amp;quot; %3Cb%3E",
    "--><!-- ]]> `x`",
)
# What they choose on good days: for pictures.
TIDY = ("Releases of our own tools", "The npm registry", "The Python Package Index", "Charts of the platform team", "Alpine Linux 3.22",
        "Packages for EL 9", "Images of the platform team", "Uploads of the build", "All charts, one address", "Charts that others publish")
KINDS = ("overview", "repositories", "browse", "artifact", "package", "image", "search", "jobs", "health", "configuration", "explain")


def slug(text):
    return re.sub("[^a-z0-9]+", "-", text.lower())


def encoded(path):
    return urllib.parse.quote(path)


class Pantry:
    """An upstream of every type whose texts are the corpus, and what clients have asked larder for."""

    def __init__(self, case, texts=CORPUS, named=None):
        self.case = case
        self.texts = texts
        self.is_odd = texts is CORPUS
        self.origin = case.origin()
        self.origin.named = named
        self.second = case.origin()
        self.paths = []
        self.job = None
        self._files()
        self._npm()
        self._pypi()
        self._helm()
        self._alpine()
        self._rpm()
        self._image()

    def _files(self):
        for number, text in enumerate(self.texts):
            path = f"odd/{number} {text}" if self.is_odd else f"tools/{slug(text)}.bin"
            self.origin.put(f"/files/{path}", f"file {number}", f"text/plain; x={number}", ETag=f'"<b data-injected>{number}"')
            self.paths.append(("files", path))
            self.origin.answer(f"/files/broken/{text}", lambda _, text=text: Resource(text.encode(), "text/html", status=500))
        for path in ("readme.txt", "keyboard/gone.txt", "releases/1.0/tool.tar.gz", "releases/1.1/tool.tar.gz", "releases/copy.tar.gz"):
            self.origin.put(f"/files/{path}", "a file\n" * 200, "application/octet-stream")
            self.paths.append(("files", path))

    def _npm(self):
        npm_packages.serve(self.origin)
        tarball = {"tarball": f"{self.origin.url}/odd/-/odd-1.0.0.tgz", "shasum": "0" * 40}
        versions = {f"1.0.{number}": {"name": "odd", "version": f"1.0.{number}", "deprecated": text, "description": text, "dist": {
            **tarball, "tarball": f"{self.origin.url}/odd/-/odd-1.0.{number}.tgz"}} for number, text in enumerate(self.texts)}
        document = {"name": "odd", "description": self.texts[0], "dist-tags": {"latest": "1.0.0", self.texts[1]: "1.0.1", "long-" * 40: "1.0.2"}, "versions": versions,
                    "time": {version: "2024-01-02T03:04:05.000Z" for version in versions}}
        self.origin.put("/odd", json.dumps(document), "application/json")
        self.paths += [("npm", "odd"), ("npm", "pantry-jam"), ("npm", npm_packages.tarball_path("pantry-jam", "1.0.0")[1:])]

    def _pypi(self):
        files = []
        for number, text in enumerate(self.texts):
            body = f"wheel {number}".encode()
            name = f"odd-1.{number}-py3-none-any.whl"
            self.origin.put(f"/packages/{name}", body)
            files.append({"filename": name, "url": f"{self.origin.url}/packages/{name}", "hashes": {"sha256": hashlib.sha256(body).hexdigest()},
                          "size": len(body), "upload-time": "2024-01-02T03:04:05Z", "yanked": text if number % 2 else False})
        page = {"meta": {"api-version": "1.1"}, "name": "odd", "versions": [], "files": files}
        self.origin.put("/simple/odd/", json.dumps(page), "application/vnd.pypi.simple.v1+json")
        self.paths += [("pypi", "simple/odd/"), ("pypi", "packages/odd-1.0-py3-none-any.whl"), ("pypi", "packages/odd-1.1-py3-none-any.whl")]

    def _helm(self):
        entries = []
        for number, text in enumerate(self.texts):
            chart = tar_gz({"odd/Chart.yaml": f"apiVersion: v2\nname: odd\nversion: 1.{number}.0\n"})
            self.origin.put(f"/charts/odd-1.{number}.0.tgz", chart)
            entries.append({"name": "odd", "version": f"1.{number}.0", "apiVersion": "v2", "description": text, "deprecated": number % 2 == 0,
                            "created": "2024-01-02T03:04:05Z", "digest": hashlib.sha256(chart).hexdigest(), "urls": [f"odd-1.{number}.0.tgz"]})
        self.origin.put("/charts/index.yaml", json.dumps({"apiVersion": "v1", "entries": {"odd": entries}}), "text/yaml")
        self.paths += [("helm", "index.yaml"), ("helm", "odd-1.1.0.tgz")]

        # A second repository of the same kind, whose mirror is two hours behind.
        chart = tar_gz({"jam/Chart.yaml": "apiVersion: v2\nname: jam\nversion: 1.0.0\n"})
        entry = {"name": "jam", "version": "1.0.0", "apiVersion": "v2", "created": "2024-01-02T03:04:05Z", "digest": hashlib.sha256(chart).hexdigest(),
                 "urls": ["jam-1.0.0.tgz"]}
        index = json.dumps({"apiVersion": "v1", "entries": {"jam": [entry], "odd": entries[:1]}})
        for origin, behind in ((self.origin, 0), (self.second, 2 * 3600)):
            def dated(request, behind=behind):
                late = 2 * 3600 if self.mirror() in request.target else behind
                return Resource(index.encode(), "text/yaml", headers={"Last-Modified": email.utils.formatdate(LAST_MODIFIED - late, usegmt=True)})

            origin.put("/stable/jam-1.0.0.tgz", chart)
            origin.answer("/stable/index.yaml", dated)
        self.paths += [("stable", "index.yaml"), ("stable", "jam-1.0.0.tgz")]

    def _alpine(self):
        body = b"no real package"
        self.origin.put("/alpine/main/x86_64/jam-1.0-r0.apk", body)
        self.origin.put("/alpine/main/x86_64/README", "about this mirror")
        self.paths.append(("alpine", "main/x86_64/README"))

    def _rpm(self):
        package = b"no real package"
        digest = hashlib.sha256(package).hexdigest()
        primary = gzip.compress(
            f'<metadata xmlns="http://linux.duke.edu/metadata/common" packages="1"><package type="rpm"><name>jam</name><arch>noarch</arch>'
            f'<version epoch="0" ver="1.0" rel="1"/><checksum type="sha256" pkgid="YES">{digest}</checksum><size package="{len(package)}"/>'
            '<location href="Packages/jam-1.0-1.noarch.rpm"/></package></metadata>'.encode(), mtime=0)
        named = hashlib.sha256(primary).hexdigest()
        self.origin.put("/rpm/repodata/repomd.xml", f'<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision><data type="primary">'
                        f'<checksum type="sha256">{named}</checksum><location href="repodata/{named}-primary.xml.gz"/><size>{len(primary)}</size></data></repomd>')
        self.origin.put(f"/rpm/repodata/{named}-primary.xml.gz", primary)
        self.origin.put("/rpm/Packages/jam-1.0-1.noarch.rpm", package)
        self.paths += [("rpm", "repodata/repomd.xml"), ("rpm", "Packages/jam-1.0-1.noarch.rpm")]

    def _image(self):
        def blob(body):
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            self.origin.put(f"/v2/app/jam/blobs/{digest}", body, Docker_Content_Digest=digest)
            return {"digest": digest, "size": len(body)}

        def manifest(body, kind, *names):
            digest = "sha256:" + hashlib.sha256(body).hexdigest()
            for name in (digest, *names):
                self.origin.put(f"/v2/app/jam/manifests/{name}", body, kind, Docker_Content_Digest=digest)
            return {"mediaType": kind, "digest": digest, "size": len(body)}

        self.origin.put("/v2/", "{}", "application/json")
        odd = {"architecture": CORPUS[5], "created": CORPUS[1], "config": {"Cmd": list(CORPUS)}}
        usual = {"architecture": "amd64", "created": "2024-01-02T03:04:05Z", "config": {"Cmd": ["/usr/bin/jam", "--serve"]}}
        config = blob(json.dumps({"os": "linux", **(odd if self.is_odd else usual)}).encode())
        kinds = CORPUS if self.is_odd else ["application/vnd.oci.image.layer.v1.tar+gzip"] * 4
        layers = [{"mediaType": kind, **blob(f"layer {number}".encode() * 9_999)} for number, kind in enumerate(kinds)]
        image = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
                            "layers": layers}).encode()
        of_image = manifest(image, OCI_MANIFEST)
        index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            {**of_image, "platform": {"os": "linux", "architecture": CORPUS[0] if self.is_odd else "amd64"}}]}).encode()
        manifest(index, OCI_INDEX, "1.0")
        self.paths += [("docker", "app/jam/manifests/1.0"), ("docker", f"app/jam/manifests/{of_image['digest']}"),
                       ("docker", f"app/jam/blobs/{config['digest']}"), ("docker", f"app/jam/blobs/{layers[0]['digest']}")]

    def mirror(self):
        """The address of the second mirror."""
        return "http://mirror.example.com" if self.origin.named else self.second.url

    def remotes(self):
        def remote(number, package, path, **more):
            proxy = {"proxy": self.origin.address} if self.origin.named else {}
            return {"type": "remote", "package": package, "base_url": self.origin.url + path, "description": self.texts[number], **proxy, **more}

        everything = {"immutable_patterns": [".*"]}
        return {
            "files": remote(0, "generic", "/files", immutable_patterns=["^(odd|broken|keyboard|releases|readme|tools)"]),
            "npm": remote(1, "npm", ""),
            "pypi": remote(2, "pypi", "", quarantine_new=True, quarantine_days=30_000),
            "helm": remote(3, "helm", "/charts"),
            "stable": remote(9, "helm", "/stable", base_url=[self.origin.url + "/stable", self.mirror() + "/stable"]),
            "alpine": remote(4, "alpine", "/alpine", **everything),
            "rpm": remote(5, "rpm", "/rpm"),
            "docker": remote(6, "docker", ""),
            "uploads": {"type": "local", "description": self.texts[7]},
            "charts": {"type": "virtual", "package": "helm", "members": ["helm", "stable"], "description": self.texts[8]},
        }

    def fill(self):
        """Asks for all of it as clients would, and for what goes wrong."""
        base = self.case.listens_at
        accept = {"docker": f"{OCI_INDEX}, {OCI_MANIFEST}", "pypi": "application/vnd.pypi.simple.v1+json, text/html;q=0.5"}
        for name, path in self.paths:
            place = f"{base}/v2/{name}/" if name == "docker" else f"{base}/api/v1/remote/{name}/"
            get(place + encoded(path), Accept=accept.get(name, "*/*"))
        for text in self.texts:
            if self.is_odd:
                get(f"{base}/api/v1/remote/files/{encoded('broken/' + text)}")
                get(f"{base}/api/v1/remote/files/{encoded('refused/' + text)}")
            put(f"{base}/api/v1/remote/uploads/{encoded('odd/' + text if self.is_odd else 'builds/' + slug(text) + '.bin')}", b"uploaded")
        for text in TIDY if not self.is_odd else ():
            name = slug(text)
            for path in (f"releases/2.0/{name}.tar.gz", f"private/{name}.key"):
                get(f"{base}/api/v1/remote/files/{path}")
        for _ in range(0 if self.is_odd else 12):
            for name, path in self.paths:
                place = f"{base}/v2/{name}/" if name == "docker" else f"{base}/api/v1/remote/{name}/"
                get(place + encoded(path), Accept=accept.get(name, "*/*"))
        job = json.dumps({"paths": [path for name, path in self.paths if name == "files"] + [f"broken/{text}" if self.is_odd else f"releases/3.0/{number}.tar.gz"
                                     for number, text in enumerate(self.texts[:3] if not self.is_odd else self.texts)]})
        made = post(f"{base}/api/v1/artifacts/files/cache", job.encode())
        self.job = f"/ui/jobs/{made['id']}"

    def seeds(self):
        texts = [f"/ui/search?q={urllib.parse.quote(text, safe='')}" for text in CORPUS]
        return [
            "/ui/",
            "/ui/search?q=tool&kind=name",
            "/ui/search?q=1.0&kind=version",
            "/ui/search?q=odd%2F&kind=prefix&repository=files",
            f"/ui/search?q={hashlib.sha256(b'a file' + bytes([10])).hexdigest()[:8]}&kind=digest",
            *texts,
            "/ui/repositories/npm/package?name=odd",
            "/ui/repositories/pypi/package?name=odd",
            "/ui/repositories/helm/package?name=odd",
            "/ui/repositories/rpm/package?name=jam",
            "/ui/repositories/charts/package?name=odd",
            "/ui/repositories/charts/package?name=jam",
            "/ui/repositories/charts/outage",
            "/ui/search?q=odd&repository=charts",
            "/ui/login",
            "/ui/repositories/docker/image?name=app%2Fjam&reference=1.0",
            f"/ui/explain?url={urllib.parse.quote('files/odd/0 ' + CORPUS[0], safe='')}",
            f"/ui/explain?url={urllib.parse.quote(CORPUS[3], safe='')}",
            f"/ui/repositories/files/flush?pattern={urllib.parse.quote(CORPUS[1], safe='')}",
        ]

    def pictures(self):
        return {
            "overview": "/ui/",
            "repositories": "/ui/repositories",
            "repository": "/ui/repositories/npm",
            "mirrors": "/ui/repositories/stable#upstream",
            "virtual": "/ui/repositories/charts",
            "refused": "/ui/repositories/files#refused",
            "browse": "/ui/repositories/files/browse/releases/",
            "virtual-browse": "/ui/repositories/charts/browse/",
            "search": "/ui/search?q=tool",
            "artifact": "/ui/repositories/npm/artifact/pantry-jam/-/pantry-jam-1.0.0.tgz",
            "package": "/ui/repositories/npm/package?name=pantry-jam",
            "image": "/ui/repositories/docker/image?name=app%2Fjam&reference=1.0",
            "jobs": "/ui/jobs",
            "job": self.job or "/ui/jobs",
            "health": "/ui/health",
            "configuration": "/ui/configuration",
            "explain": "/ui/explain?url=npm%2Fpantry-jam%2F-%2Fpantry-jam-1.0.0.tgz",
            "outage": "/ui/repositories/files/outage",
            "flush": "/ui/repositories/files/flush",
            "message": "/ui/repositories/flies",
        }


def request(url, method="GET", body=None, **headers):
    """A request whose answer may be anything."""
    named = {"Authorization": f"Bearer {TOKEN}", **headers}
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            urllib.request.Request(url, data=body, method=method, headers=named), timeout=30
        ) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def get(url, **headers):
    return request(url, **headers)


def put(url, body):
    status, said = request(url, "PUT", body, **{"Content-Type": "text/plain"})
    expect(status in (200, 201), f"PUT {url}: {status} {said!r}")


def post(url, body):
    status, said = request(url, "POST", body, **{"Content-Type": "application/json"})
    expect(status in (200, 201, 202), f"POST {url}: {status} {said!r}")
    return json.loads(said)


def browse(case, task):
    """Runs the browser; gives what it found."""
    chromium = shutil.which("chromium")
    tools = TOOLS / "browser" / "node_modules"
    if not chromium or not (tools / "axe-core").exists():
        raise Missing("chromium, playwright-core or axe-core is not installed; tests/install/clients.sh installs them")
    home = case.home()
    asked = home / "task.json"
    asked.write_text(json.dumps({"base": case.listens_at, "at": case.listens_at, "token": TOKEN, "chromium": chromium, "tools": str(tools), **task}))
    printed = run([tool("node"), HERE / "ui_browser.cjs", asked], cwd=home, env=environment(home), seconds=1800)
    return json.loads(printed.splitlines()[-1])


def kind_of(address):
    parts = address.split("?")[0].strip("/").split("/")
    if len(parts) == 1:
        return "overview"
    return parts[3] if parts[1] == "repositories" and len(parts) > 3 else parts[1]


def pages(case):
    """Every link of every page."""
    case.needs_larder()
    pantry = Pantry(case)
    case.serve(pantry.remotes(), auth={"admin_token": TOKEN})
    pantry.fill()
    found = browse(case, {"seeds": pantry.seeds(), "most": 600})
    seen = {kind_of(address) for address in found["pages"]}
    large = [f"{address}: {page['bytes']} bytes" for address, page in found["pages"].items() if page["bytes"] > MOST_BYTES]
    elsewhere = [link for link in found["other_links"] if not link.startswith(case.listens_at + "/")]
    wrong = found["problems"] + large + [f"a link to {link}" for link in elsewhere]
    print(f"    {len(found['pages'])} pages, the largest {max(page['bytes'] for page in found['pages'].values())} bytes", flush=True)
    expect(not wrong, f"{len(wrong)} problems on {len(found['pages'])} pages:\n" + "\n".join(wrong[:40]))
    expect(not set(KINDS) - seen, f"no link leads to {sorted(set(KINDS) - seen)}; {len(found['pages'])} pages were seen")
    expect(found["steps"] == ["signed in", "flushed", "several tabs", "copied"], f"only these steps were taken: {found['steps']}")
    listed = json.loads(ask(f"{case.listens_at}/api/v1/artifacts/files?pattern=%5Ekeyboard%2F").body)
    expect(not listed["artifacts"], "the flush by keyboard has flushed nothing")


def pictures(case):
    """Pictures of the pages, where somebody wants them: all hosts in them are examples."""
    case.needs_larder()
    place = os.environ.get("LARDER_UI_PICTURES")
    if not place:
        return
    pantry = Pantry(case, TIDY, "http://packages.example.com")
    settings = {"auth": {"admin_token": TOKEN}, "public_url": "http://larder.example.com"}
    case.serve(pantry.remotes(), **settings)
    pantry.fill()
    database = case.directory / "data" / "larder.sqlite"
    if not database.exists():
        return
    case.stop_larder()
    a_month(database, [*pantry.remotes(), ""])
    case.serve(pantry.remotes(), **settings)
    request(f"{case.listens_at}/cache/flush", "PUT")
    pantry.fill()
    browse(case, {"pictures": pantry.pictures(), "screenshots": place, "base": "http://larder.example.com", "at": case.listens_at,
                  "instead": {str(case.directory): "/etc/larder", case.listens_at.split("//")[1]: "127.0.0.1:8000",
                              pantry.origin.address: "http://proxy.example.com:3128"}})


def a_month(database, names):
    """Writes down thirty days of use, as larder would have counted them."""
    connection = sqlite3.connect(database)
    now = int(time.time() * 1000)
    room = shutil.disk_usage(database.parent).free
    rows = []
    for place, name in enumerate(names):
        share = 1.0 if not name else 0.5 / (place + 1)
        for step, count in ((300, 288), (7200, 360)):
            for number in range(count):
                at = (now // (step * 1000) - number - 1) * step * 1000
                hour = at / 3_600_000
                busy = max(0.06, math.sin((hour % 24 - 6) / 24 * 2 * math.pi)) * (0.35 if int(hour / 24 + 4) % 7 > 4 else 1)
                requests = int(busy * share * step * (2.2 + 0.4 * math.sin(hour * 7 + place)))
                misses = int(requests * (0.04 + 0.05 * abs(math.sin(hour / 9 + place))))
                served, fetched = requests * 900_000, misses * 1_100_000
                stored = int(share * 90_000 * (1 - number * step / 86_400 / 60))
                free = None if name else room + int(number * step / 86_400 * 0.3 * 2**30)
                rows.append((name, f"{step:06} {at:019}", step, at, requests, requests - misses, misses, 0, requests // 900, requests // 400, served,
                             fetched, stored, free, at))
    with connection:
        connection.executemany(f"INSERT OR REPLACE INTO figures VALUES ({', '.join('?' * 15)})", rows)
        # Who has not been asked yet has no row of when that began.
        first = connection.execute("SELECT * FROM figures WHERE step = 0 AND repository = ''").fetchone()
        more = [(name, *first[1:]) for name in names if name]
        connection.executemany(f"INSERT OR IGNORE INTO figures VALUES ({', '.join('?' * 15)})", more)
        connection.execute("UPDATE figures SET began_at = ? WHERE step = 0", (now - 40 * 86_400_000,))
    connection.close()


def quick(case):
    """The time that the server takes for each page, where a hundred thousand files are held."""
    case.needs_larder()
    pantry = Pantry(case)
    case.serve(pantry.remotes(), auth={"admin_token": TOKEN})
    pantry.fill()
    case.stop_larder()
    database = case.directory / "data" / "larder.sqlite"
    if not database.exists():
        return  # Over backends: what the statements cost there, their own tests measure.
    fill_up(database)
    case.serve(pantry.remotes(), auth={"admin_token": TOKEN})
    addresses = [
        *pantry.pictures().values(),
        "/ui/repositories/files/browse/bulk/",
        "/ui/repositories/files/browse/bulk/0500/",
        "/ui/repositories/files/browse/bulk/?after=d0500",
        "/ui/repositories/files/artifact/bulk/0500/file-50000.bin",
        "/ui/search?q=file-09999",
        "/ui/search?q=no+such+file+anywhere",
        "/ui/search?q=bulk%2F0999&kind=prefix",
        "/ui/search?q=99999&kind=version",
    ]
    found = browse(case, {"timed": addresses})
    times = sorted(((found["pages"][address]["ms"], address) for address in addresses), reverse=True)
    print(f"    {RECORDS} records, server time: " + ", ".join(f"{ms:.0f} ms {address}" for ms, address in times[:5]), flush=True)
    slow = [f"{ms} ms: {address}" for ms, address in times if not 0 <= ms <= MOST_MS * GENEROUS]
    expect(not slow, "pages that take long at 100 000 records:\n" + "\n".join(slow))


def fill_up(database):
    """Writes rows of held files into a database that nobody has open, as an earlier version of larder wrote them: as text."""
    connection = sqlite3.connect(database)
    with connection:
        blob, size = connection.execute("SELECT blob, size FROM artifacts WHERE repository = 'files' AND path = 'readme.txt'").fetchone()
        at = 1_700_000_000_000
        record = json.dumps({
            "content": {"blob": {"digest": blob, "size": size}}, "headers": {"content_type": "application/octet-stream", "etag": '"1"'},
            "source_url": "http://127.0.0.1:9/files/bulk", "published_at": None, "first_seen_at": at, "contacted_at": at, "renewed_at": at,
            "began_at": at, "verified": False,
        })
        rows = (("files", f"bulk/{number // 100:04}/file-{number:05}.bin", "", blob, size, at, record) for number in range(RECORDS))
        connection.executemany("INSERT INTO artifacts (repository, path, variant, blob, size, updated_at, record) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.close()


CASES = {"ui-pages": pages, "ui-quick": quick, "ui-pictures": pictures}
