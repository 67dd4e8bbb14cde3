"""Goal 19: from the start of the process to the first cached answer, with a small and with a large cache."""

import hashlib
import json
import sqlite3
import time

from client import fetch
from hits import warm
from report import median
from servers import Failed

RECORDS = 100_000

# How many of them have their bytes on disk: enough to show a scan of the files, few enough to be made and removed soon.
FILES = 5_000


def start(bench):
    with bench.servers() as servers:
        for server in servers:
            warm(bench, server, server.path("files", "f/1k.bin"), bench.files.sha256("1k"))
        rows = {server.name: [] for server in servers}
        for number, server in bench.alternating(*servers):
            rows[server.name].append(restart(server))
            bench.report.raw("start", server=server.name, round=number, ms=rows[server.name][-1])
        larder, nginx = (median(rows[server.name]) for server in servers)
        bench.report.bound("19", "start to first cached 200", larder, 50, "ms", nginx)
        servers[0].stop()
        fill(servers[0])
        servers[0].start()
        many = [restart(servers[0]) for _ in range(bench.rounds)]
        bench.report.raw("start", server="larder", records=RECORDS, ms=many)
        bench.report.bound("19", f"start to first cached 200, {RECORDS:,} objects held", median(many), 50, "ms", nginx)


def restart(server):
    """Milliseconds until a cached file is there again."""
    server.stop()
    path = server.path("files", "f/1k.bin")
    begun = time.monotonic()
    server.launch()
    while time.monotonic() - begun < 30:
        if fetch(server.port, path).is_good():
            return (time.monotonic() - begun) * 1e3
        time.sleep(0.001)
    raise Failed(f"{server.name} did not answer within 30 s of its start\n{server.log_tail()}")


def fill(larder):
    """Gives a stopped larder many further objects: rows of its database, and blobs that they name."""
    connection = sqlite3.connect(larder.data_directory / "larder.sqlite")
    repository, variant, digest, size, updated = connection.execute(
        "SELECT repository, variant, blob, size, updated_at FROM artifacts WHERE path LIKE '%1k.bin'"
    ).fetchone()
    blob_directory = next(larder.data_directory.rglob(digest.removeprefix("sha256:"))).parents[2]
    # Records of earlier versions were JSON, and are read.
    times = dict.fromkeys(("first_seen_at", "contacted_at", "renewed_at", "began_at"), updated)
    template = {"content": {"blob": {}}, "headers": {}, "source_url": "http://example.com/many", "published_at": None, "verified": True, **times}
    blobs, artifacts = [], []
    for number in range(RECORDS):
        body = b"object %d" % number
        name = hashlib.sha256(body).hexdigest()
        blob = f"sha256:{name}"
        modified = 0
        if number < FILES:
            file = blob_directory / name[:2] / name[2:4] / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
            modified = file.stat().st_mtime_ns
        template["content"]["blob"].update(digest=blob, size=len(body))
        blobs.append((blob, len(body), modified))
        artifacts.append((repository, f"many/{number}", variant, blob, len(body), updated, json.dumps(template)))
    with connection:
        connection.executemany("INSERT INTO blobs (digest, size, modified_ns) VALUES (?, ?, ?)", blobs)
        columns = "repository, path, variant, blob, size, updated_at, record"
        connection.executemany(f"INSERT INTO artifacts ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", artifacts)
    connection.close()


CASES = {"start": start}
