"""Goal 24: cached large files over TLS, by HTTP/1.1 and HTTP/2, beside nginx with the same certificate."""

import subprocess

from data import GIB, SIZES
from hits import of
from servers import Failed

# (what curl is told, what the row says, the goal)
PROTOCOLS = (("--http1.1", "HTTP/1.1", 1.0), ("--http2", "HTTP/2", 1.1))


def tls(bench):
    with bench.servers(tls=True) as servers:
        for size in ("100m", "1g"):
            for server in servers:
                # The second one comes out of the cache.
                for _ in range(2):
                    download(server, size, "--http1.1")
            for option, protocol, at_most in PROTOCOLS:
                rows = {server.name: [] for server in servers}
                for number, server in bench.alternating(*servers):
                    measured = transfer(server, size, option)
                    bench.report.raw("tls", server=server.name, size=size, protocol=protocol, round=number, **measured)
                    rows[server.name].append(measured)
                compare(bench.report, size, protocol, at_most, rows)


def transfer(server, size, option):
    """About 1 GiB, one file after the other, each over a connection of its own."""
    times = max(1, GIB // SIZES[size])
    before = server.cpu()
    for _ in range(times):
        download(server, size, option)
    return {"cpu_s_per_gib": (server.cpu() - before) / (times * SIZES[size] / GIB)}


def download(server, size, option):
    url = f"https://127.0.0.1:{server.port}{server.path('files', f'f/{size}.bin')}"
    written = "%{http_code} %{size_download} %{http_version}"
    done = subprocess.run(
        ["curl", "-sk", option, "-o", "/dev/null", "-w", written, "--max-time", "120", url],
        capture_output=True, text=True, check=False,
    )
    version = "2" if option == "--http2" else "1.1"
    if done.stdout.split() != ["200", str(SIZES[size]), version]:
        raise Failed(f"{server.name} {url} {option}: {done.stdout!r} {done.stderr}\n{server.log_tail()}")


def compare(report, size, protocol, at_most, rows):
    key = "cpu_s_per_gib"
    what = f"{size} cached, TLS, {protocol}: CPU"
    report.ratio("24", what, of(rows["larder"], key), of(rows["nginx"], key), "s/GiB", at_most=at_most, gate="cpu")


CASES = {"tls": tls}
