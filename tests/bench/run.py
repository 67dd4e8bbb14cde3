#!/usr/bin/env python3
"""larder beside nginx's proxy_cache, in one run on one machine: the goals of docs/operate/performance.md.

Prints one table; the raw rows go to target/bench/ as JSON lines. The exit code is 0 unless a measurement itself fails,
or `--gate` is given and a gated goal is missed.
"""

import argparse
import contextlib
import itertools
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True

import backends
import before
import bounded
import bulk
import cold
import data
import distinct
import documents
import faults
import hits
import images
import memory
import start
import tls
from report import Report
from servers import Failed, Larder, Nginx, Origin, Registry, make_certificate

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
MODULES = (hits, distinct, bulk, tls, images, cold, documents, memory, start, faults, backends, bounded, before)
CASES = {name: case for module in MODULES for name, case in module.CASES.items()}


class Bench:
    """What every case is given."""

    def __init__(self, options, directory, report):
        self.report = report
        self.quick = options.quick
        self.rounds = options.rounds or (1 if options.quick else 5)
        self.seconds = 1 if options.quick else 2
        # A copy: a build that ends meanwhile must not change what is measured.
        self.binary = shutil.copy2(options.larder.resolve(), directory / "larder")
        self.before = options.before and shutil.copy2(options.before.resolve(), directory / "before")
        self._directory = directory
        self._numbers = itertools.count(int(time.time()) % 100_000 * 1_000)
        self.files = data.Files(TARGET / "bench" / "data").prepare()
        self.origin = Origin(directory / "origin", self.files.directory)

    def fresh(self):
        """A number that no path has had yet."""
        return next(self._numbers)

    def alternating(self, *servers, times=1):
        """(round, server) pairs; the order is reversed every other round. `times` as many rounds as usual."""
        for number in range(self.rounds * times):
            for server in servers if number % 2 == 0 else servers[::-1]:
                yield number, server

    @contextlib.contextmanager
    def servers(self, *, nginx=True, registry=False, tls=False, **settings):
        """A new larder with these top-level settings, and beside it a new nginx and, where wanted, another registry; all with
        empty caches. `tls`: both speak it, with the same certificate."""
        directory = Path(tempfile.mkdtemp(prefix="servers-", dir=self._directory))
        started = []
        certificate = make_certificate(directory) if tls else None
        if certificate:
            settings["tls"] = certificate
        try:
            made = [Larder(directory / "larder", self.binary, self.origin, **settings)]
            made += [Nginx(directory / "nginx", self.origin, certificate)] if nginx else []
            made += [Registry(directory / "registry", self.origin)] if registry else []
            for server in made:
                started.append(server)
                server.start()
            yield made if nginx else made[0]
        finally:
            for server in started:
                server.stop()
            if not self.origin.is_running:
                self.origin.start()
            self.origin.set(rate=0, delay=0, cut=0, chunkcut=0, cuts=1, max_age=3600)
            shutil.rmtree(directory, ignore_errors=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--larder",
        type=Path,
        default=TARGET / "release" / "larder",
        help="the program to measure [default: %(default)s]",
    )
    parser.add_argument("--before", type=Path, metavar="PROGRAM", help="an older larder, for the case `before`")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose name begins with one of these")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement [default: 5; 1 with --quick]")
    parser.add_argument(
        "--quick", action="store_true", help="one short round of each: does it work, and roughly how fast?"
    )
    parser.add_argument("--gate", action="store_true", help="exit with 1 if a gated goal is missed")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    return parser.parse_args()


def main():
    options = arguments()
    chosen = [name for name in CASES if not options.only or name.startswith(tuple(options.only))]
    if not options.before and not options.only:
        chosen.remove("before")
    if options.list:
        print("\n".join(chosen))
        return 0
    if problem := what_is_missing(options, chosen):
        print(problem, file=sys.stderr)
        return 2
    # So that an interrupted run, too, leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("interrupted"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    bench_directory = TARGET.resolve() / "bench"
    report = Report(bench_directory / time.strftime("%Y-%m-%dT%H-%M-%S.jsonl"))
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=bench_directory))
    broken = []
    try:
        bench = Bench(options, directory, report)
        bench.origin.start()
        try:
            broken = [name for name in chosen if not run_case(name, bench)]
        finally:
            bench.origin.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return conclude(report, broken, options.gate)


def what_is_missing(options, chosen):
    if not options.larder.exists():
        return f"{options.larder} does not exist; build it with: cargo build --release --locked"
    if not chosen:
        return "no case has such a name; --list prints them"
    missing = [
        name for name in ("nginx", "wrk", "curl", "openssl", "docker-registry") if not shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    ]
    return f"not installed: {', '.join(missing)}; tests/install/clients.sh --bench installs them" if missing else ""


def run_case(name, bench):
    """Whether the case could be measured."""
    begun = time.monotonic()
    print(f"{name}:", file=sys.stderr, flush=True)
    try:
        CASES[name](bench)
    except Failed as failure:
        print(f"FAIL {name}: {failure}", file=sys.stderr, flush=True)
        return False
    except Exception:
        print(f"FAIL {name}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        return False
    print(f"  ({time.monotonic() - begun:.0f} s)", file=sys.stderr, flush=True)
    return True


def conclude(report, broken, gate):
    print(report.table())
    missed = report.missed()
    print(f"\n{len(report.rows)} rows, {len(missed)} goals missed, {len(broken)} cases failed; raw rows: {report.path}")
    if broken:
        print(f"not measured: {', '.join(broken)}", file=sys.stderr)
        return 1
    failed = report.failed_gates() if gate else []
    for row in failed:
        print(f"gate: goal {row.goal}, {row.what}: must be {row.must}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
