#!/usr/bin/env python3
"""The upstream of the benchmark: counts, throttles, delays and breaks off answers. Loopback only.

    /f/SIZE.bin   /n/ANY/f/SIZE.bin          files; `n/ANY` makes a path that no cache knows yet
    /small/NUMBER.bin                        files of 10 KiB, each with bytes of its own
    /npm/NAME   /npm/NAME/-/NAME-VERSION.tgz packument (abbreviated by Accept), tarball; NAME `few-…` has three versions
    /pypi/simple/NAME/   /pypi/packages/…    simple page (HTML, or JSON by Accept), files
    /helm/…index.yaml                        the large index
    /charts/index.yaml   /charts/demo-….tgz  a small index and its charts
    /v2/NAME/manifests/1   /v2/NAME/blobs/…  an image whose one layer is the file of 1 GiB; any file as a blob
    /rpm/ANY/repodata/…   /rpm/ANY/Packages/p-SIZE-1-1.x86_64.rpm    a repository whose packages are the files
    /apk/ANY/x86_64/APKINDEX.tar.gz   /apk/ANY/x86_64/p-SIZE-1-r0.apk        packages of about these sizes
    /_set?KEY=VALUE&…                        rate (MB/s per file), delay (s before a file's head), cut and chunkcut (MiB
                                             after which the next file answer breaks off), cuts (how many do), max_age
    /_counts   /_reset                       requests by method and path

Prints `ready` once it listens.
"""

import argparse
import asyncio
import collections
import hashlib
import json
import re
import sys
import time
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True

import data

MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"
STEP = 256 << 10


@dataclass
class Behaviour:
    """What the tests set."""

    rate: float = 0
    delay: float = 0
    cut: float = 0
    chunkcut: float = 0
    cuts: float = 1
    max_age: float = 3600


@dataclass
class Resource:
    """What stands at a path: bytes, or a file on disk."""

    content_type: str
    etag: str
    body: bytes = b""
    file: Path = None
    headers: dict = field(default_factory=dict)

    @property
    def length(self):
        return self.file.stat().st_size if self.file else len(self.body)


class Site:
    """Which resource a path names."""

    def __init__(self, files, base):
        self._files = files
        self._base = base
        self._templates = data.documents(files)
        self._sizes = {files.sha256(size): size for size in data.SIZES}
        self._made = collections.OrderedDict()

    def find(self, path, accept):
        if found := re.fullmatch(r"(?:/n/\w+)?/f/(\w+)\.bin", path):
            return self._file(found[1]) if found[1] in data.SIZES else None
        if found := re.fullmatch(r"/small/(\d+)\.bin", path):
            return self._bytes(hashlib.sha256(found[1].encode()).digest() * 320, "application/octet-stream")
        if found := re.fullmatch(r"/npm/([\w-]+)/-/\1-(0\.0\.\d)\.tgz", path):
            return self._file(data.VERSIONS[found[2]])
        if found := re.fullmatch(r"/npm/([\w-]+)", path):
            form = "abbreviated" if "install-v1" in accept else "full"
            content_type = "application/vnd.npm.install-v1+json" if form == "abbreviated" else "application/json"
            return self._document(f"npm{few(found[1])} {form}", found[1], "/npm", content_type, "accept")
        if found := re.fullmatch(r"/pypi/simple/([\w-]+)/", path):
            form = "json" if "simple.v1+json" in accept else "html"
            content_type = "application/vnd.pypi.simple.v1+json" if form == "json" else "text/html"
            return self._document(f"pypi{few(found[1])} {form}", found[1], "/pypi", content_type, "Accept")
        if found := re.fullmatch(r"/pypi/packages/(\w\w)/(\w\w)/(\w+)/[\w.-]+", path):
            size = self._sizes.get("".join(found.groups()))
            return self._file(size) if size else None
        if re.fullmatch(r"/helm/(?:\w+/)?index\.yaml", path):
            return self._document("helm", "", "/helm", "application/yaml", "")
        if path == "/charts/index.yaml":
            return self._document("charts", "", "/charts", "application/yaml", "")
        if found := re.fullmatch(r"/charts/demo-([12])\.\d+\.0\.tgz", path):
            return self._file({"1": "10m", "2": "100m"}[found[1]])
        if path == "/v2/":
            return self._bytes(b"{}", "application/json", Docker_Distribution_Api_Version="registry/2.0")
        if found := re.fullmatch(r"/v2/[\w/-]+/blobs/sha256:(\w{64})", path):
            size = self._sizes.get(found[1])
            return self._file(size, Docker_Content_Digest=f"sha256:{found[1]}") if size else None
        if found := re.fullmatch(r"/v2/[\w/-]+/manifests/(1|sha256:\w{64})", path):
            digest, body = data.image(self._files)
            return self._bytes(body, data.OCI_MANIFEST, Docker_Content_Digest=digest) if found[1] in ("1", digest) else None
        if found := re.fullmatch(r"/rpm/\w+/repodata/([\w.-]+)", path):
            body = data.rpm_metadata(self._files).get(found[1])
            return self._bytes(body, "application/octet-stream") if body else None
        if found := re.fullmatch(r"/rpm/\w+/Packages/p-(\w+)-1-1\.x86_64\.rpm", path):
            return self._file(found[1]) if found[1] in data.SIZES else None
        if re.fullmatch(r"/apk/\w+/x86_64/APKINDEX\.tar\.gz", path):
            return self._bytes(data.apk_index(self._files), "application/gzip")
        if found := re.fullmatch(r"/apk/\w+/x86_64/p-([\w-]+)-1-r0\.apk", path):
            return self._file(f"apk-{found[1]}") if found[1] in data.APKS else None
        return None

    def _bytes(self, body, content_type, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Resource(content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"', body=body, headers=named)

    def _file(self, size, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Resource("application/octet-stream", f'"{size}"', file=self._files.path(size), headers=named)

    def _document(self, template, name, prefix, content_type, vary):
        key = (template, name, prefix)
        if key not in self._made:
            values = {data.NAME: name, data.FILE: name.replace("-", "_"), data.BASE: self._base + prefix}
            body = self._templates[template]
            for placeholder, value in values.items():
                body = body.replace(placeholder, value.encode())
            self._made[key] = (body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
            if len(self._made) > 12:
                self._made.popitem(last=False)
        body, etag = self._made[key]
        return Resource(content_type, etag, body=body, headers={"Vary": vary} if vary else {})


def few(name):
    return " few" if name.startswith("few-") else ""


class BrokenOff(Exception):
    """The answer ends here, on purpose."""


class Origin:
    def __init__(self, files, port):
        self._site = Site(files, f"http://127.0.0.1:{port}")
        self._behaviour = Behaviour()
        self._counts = collections.Counter()

    async def connection(self, reader, writer):
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        except BrokenOff:
            writer.transport.abort()
        finally:
            writer.close()

    async def _exchange(self, reader, writer):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if "content-length" in headers:
            await reader.readexactly(int(headers["content-length"]))
        path, _, query = target.partition("?")
        if path.startswith("/_"):
            send_head(writer, 200, {"Content-Length": len(body := self._control(path, query))})
            writer.write(body)
            await writer.drain()
            return True
        path = urllib.parse.unquote(path)
        self._counts[f"{method} {path}"] += 1
        await self._answer(writer, method, headers, self._site.find(path, headers.get("accept", "")))
        await writer.drain()
        return headers.get("connection", "").lower() != "close"

    def _control(self, path, query):
        if path == "/_reset":
            self._counts.clear()
        if path == "/_set":
            for name, value in urllib.parse.parse_qsl(query):
                setattr(self._behaviour, name, float(value))
        return json.dumps(self._counts).encode()

    async def _answer(self, writer, method, asked, resource):
        if resource is None:
            send_head(writer, 404, {"Content-Length": 0})
            return
        if resource.file and self._behaviour.delay:
            await asyncio.sleep(self._behaviour.delay)
        headers = {
            "Content-Type": resource.content_type,
            "ETag": resource.etag,
            "Last-Modified": MODIFIED,
            "Cache-Control": f"public, max-age={self._behaviour.max_age:.0f}",
            "Accept-Ranges": "bytes",
            **resource.headers,
        }
        if asked.get("if-none-match") == resource.etag:
            send_head(writer, 304, headers)
            return
        status, start, end = 200, 0, resource.length
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.get("range", ""))
        if wanted and asked.get("if-range", resource.etag) == resource.etag and int(wanted[1]) < end:
            status, start = 206, int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{int(wanted[2] or end - 1)}/{end}"
            end = int(wanted[2] or end - 1) + 1
        cut, chunked = self._break_off(method, resource, end - start)
        headers.update({"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": end - start})
        send_head(writer, status, headers)
        if method == "HEAD":
            return
        if resource.file is None:
            writer.write(memoryview(resource.body)[start:end])
        elif cut is None and not self._behaviour.rate:
            await self._send_file(writer, resource.file, start, end)
        else:
            await self._send_slowly(writer, resource.file, start, end, cut, chunked)

    def _break_off(self, method, resource, length):
        """After how many bytes this answer is to break off, and whether it is chunked."""
        behaviour = self._behaviour
        after = int((behaviour.cut or behaviour.chunkcut) * data.MIB)
        if method != "GET" or not resource.file or not after or length <= after or behaviour.cuts < 1:
            return None, False
        behaviour.cuts -= 1
        return after, bool(behaviour.chunkcut)

    async def _send_file(self, writer, path, start, end):
        await writer.drain()
        with path.open("rb") as file:
            await asyncio.get_running_loop().sendfile(writer.transport, file, start, end - start)

    async def _send_slowly(self, writer, path, start, end, cut, chunked):
        rate = self._behaviour.rate * 1e6
        begun = time.monotonic()
        stop = end if cut is None else start + cut
        with path.open("rb") as file:
            file.seek(start)
            position = start
            while position < stop:
                part = file.read(min(STEP, stop - position))
                writer.write(b"%x\r\n%b\r\n" % (len(part), part) if chunked else part)
                await writer.drain()
                position += len(part)
                ahead = (position - start) / rate - (time.monotonic() - begun) if rate else 0
                if ahead > 0.001:
                    await asyncio.sleep(ahead)
        if cut is not None:
            # What has been written arrives first; then the connection ends in the middle of the body.
            await asyncio.sleep(0.05)
            raise BrokenOff
        if chunked:
            writer.write(b"0\r\n\r\n")


def send_head(writer, status, headers):
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode())


async def serve(port, directory):
    origin = Origin(data.Files(directory).prepare(), port)
    server = await asyncio.start_server(origin.connection, "127.0.0.1", port, backlog=4096, limit=128 << 10)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.data))
