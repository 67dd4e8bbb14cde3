"""Goal 22: many cached small files, each asked for once: more than any hot set has room for, and none twice in a row."""

import concurrent.futures
import re
import subprocess
import time

from client import Connection
from hits import of
from servers import Failed

FILES = 50_000
CONNECTIONS = 16
# The files are asked for in an order of their own, so that no two neighbours lie beside each other on the disk.
STEP = 7_919
WARM_SECONDS = 600

SCRIPT = """
local i, n, path = -1, %d, "%s"
function request()
  i = i + 1
  return wrk.format("GET", string.format(path, (i * %d) %% n))
end
"""


def distinct(bench):
    with bench.servers() as servers:
        for server in servers:
            warm(server)
        rows = {server.name: [] for server in servers}
        for number, server in bench.alternating(*servers):
            measured = walk(server, bench.seconds * 2)
            bench.report.raw("distinct", server=server.name, round=number, **measured)
            rows[server.name].append(measured)
        what = f"{FILES:,} paths of 10 KiB, each once, {CONNECTIONS} conns: CPU"
        key = "cpu_us"
        bench.report.ratio("22", what, of(rows["larder"], key), of(rows["nginx"], key), "us", at_most=1.0, gate="cpu")


def path_of(server, number):
    return server.path("files", f"small/{number}.bin")


def warm(server):
    """Every file once, then again until all are kept: they are committed behind the scenes."""
    deadline = time.monotonic() + WARM_SECONDS
    while True:
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda part: ask(server, part), range(CONNECTIONS)))
        if stored(server) >= FILES:
            return
        if time.monotonic() > deadline:
            raise Failed(f"{server.name}: {stored(server)} of {FILES} files are kept\n{server.log_tail()}")


def ask(server, part):
    connection = Connection(server.port)
    try:
        for number in range(part, FILES, CONNECTIONS):
            got = connection.get(path_of(server, number))
            if not got.is_good() or got.length != 10 << 10:
                raise Failed(f"{server.name} {path_of(server, number)}: {got.status} {got.error}\n{server.log_tail()}")
    finally:
        connection.close()


def stored(server):
    folder = server.data_directory / "blobs" / "sha256" if server.name == "larder" else server.directory / "cache"
    return sum(1 for path in folder.rglob("*") if path.is_file())


def walk(server, seconds):
    script = server.directory / "distinct.lua"
    script.write_text(SCRIPT % (FILES, path_of(server, 0).replace("/0.bin", "/%d.bin"), STEP))
    before = server.cpu()
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", script, f"http://127.0.0.1:{server.port}"]
    out = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", out)[1])
    used = server.cpu() - before
    if requests == 0 or "Non-2xx" in out or "Socket errors" in out:
        raise Failed(f"{server.name}: {out}\n{server.log_tail()}")
    return {"requests": requests, "cpu_us": used / requests * 1e6}


CASES = {"distinct": distinct}
