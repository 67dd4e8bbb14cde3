"""Goal 18: memory at rest, under many connections, and while large files are sent."""

import threading
import time

from client import fetch, wrk
from hits import warm


def memory(bench):
    with bench.servers() as servers:
        time.sleep(1.5)
        idle = {server.name: server.memory() for server in servers}
        crowd = {server.name: under_connections(bench, server) for server in servers}
        large = {server.name: under_streams(bench, server) for server in servers}
    bench.report.raw("memory", idle=idle, connections=crowd, streams=large)
    for what, limit, values in (
        ("idle", 15, idle),
        ("peak, 512 connections on a small file", 64, crowd),
        ("peak, 8 streams of 1 GiB", 64, large),
    ):
        bench.report.bound("18", f"RssAnon {what}", values["larder"], limit, "MiB", values["nginx"], gate="exact")


def under_connections(bench, server):
    path = server.path("files", "f/1k.bin")
    warm(bench, server, path, bench.files.sha256("1k"))
    with server.peak() as peak:
        wrk(server, path, 512, bench.seconds)
    return peak.most["RssAnon"] / 1024


def under_streams(bench, server):
    path = server.path("files", "f/1g.bin")
    warm(bench, server, path, bench.files.sha256("1g"))
    threads = [threading.Thread(target=fetch, args=(server.port, path)) for _ in range(8)]
    with server.peak() as peak:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return peak.most["RssAnon"] / 1024


CASES = {"memory": memory}
