#!/usr/bin/env python3
"""Runs real clients through larder: pip, uv, npm, yarn, pnpm, bun, helm, apk, dnf, zypper, skopeo, podman, buildah,
containerd, oras, curl, apt, cargo, and a browser.

Prints one line for each case and `N passed, N failed` at the end; the exit code is 0 only if none failed.
"""

import argparse
import os
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

sys.dont_write_bytecode = True

import airgap
import alpine
import basics
import chart
import compose
import generic
import helm
import integrity
import local
import npm
import oci
import oci_containerd
import prints
import prints_clients
import pypi
import release
import roots
import rpm
import stress
import ui
import virtual
import warm
from backends import Backends
from harness import ROOT, Case, Failed, Missing

CASES = {
    **basics.CASES,
    **generic.CASES,
    **pypi.CASES,
    **npm.CASES,
    **helm.CASES,
    **alpine.CASES,
    **rpm.CASES,
    **oci.CASES,
    **oci_containerd.CASES,
    **integrity.CASES,
    **local.CASES,
    **prints_clients.CASES,
    **chart.CASES,
    **compose.CASES,
    **release.CASES,
    **roots.CASES,
    **ui.CASES,
    **virtual.CASES,
    **warm.CASES,
    **airgap.CASES,
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--larder", type=Path, default=default_binary(), help="the program to test [default: %(default)s]"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="cases whose name begins with one of these")
    parser.add_argument(
        "--jobs", type=int, default=min(4, os.cpu_count() or 1), help="cases at a time [default: %(default)s]"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="leave out the cases whose client is not installed"
    )
    parser.add_argument(
        "--backends", action="store_true", help="larder over PostgreSQL, Redis and an S3 store instead of files"
    )
    parser.add_argument("--stress", action="store_true", help="the long and heavy cases instead")
    parser.add_argument("--direct", action="store_true", help="without larder: do the tests themselves work?")
    parser.add_argument(
        "--record", action="store_true", help="write what clients print into the guide: --only prints --record"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    return parser.parse_args()


def default_binary():
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release" / "larder"


def main():
    options = arguments()
    cases = {**stress.CASES, **compose.HEAVY} if options.stress else CASES
    chosen = [name for name in cases if not options.only or name.startswith(tuple(options.only))]
    if options.list:
        print("\n".join(chosen))
        return 0
    if not options.direct and not options.larder.exists():
        print(f"{options.larder} does not exist; build it with: cargo build --release --locked", file=sys.stderr)
        return 2
    if not chosen:
        print("no case has such a name; --list prints them", file=sys.stderr)
        return 2
    if options.record:
        prints.RECORDING.set()
    # Cases share nothing: each has its larder, its upstreams, its ports and its directories.
    with (
        Backends() if options.backends else nullcontext() as backends,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        counts = Counter(pool.map(lambda name: run_case(name, cases[name], options, backends), chosen))
    if counts["left out"]:
        print(f"{counts['left out']} left out")
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    return 1 if counts["failed"] else 0


def run_case(name, use, options, backends):
    begun = time.monotonic()
    try:
        with Case(None if options.direct else options.larder.resolve(), backends) as case:
            use(case)
    except Missing as missing:
        if options.allow_missing or options.direct:
            print(f"left out {name}: {missing}", flush=True)
            return "left out"
        return report_failure(name, str(missing))
    except Failed as failure:
        return report_failure(name, str(failure))
    except Exception:
        return report_failure(name, traceback.format_exc())
    print(f"ok {name} {time.monotonic() - begun:.1f}", flush=True)
    return "passed"


def report_failure(name, text):
    indented = "\n".join("    " + line for line in text.splitlines())
    print(f"FAIL {name}\n{indented}", flush=True)
    return "failed"


if __name__ == "__main__":
    sys.exit(main())
