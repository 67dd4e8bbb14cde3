#!/usr/bin/env python3
"""Runs a command with PostgreSQL, Redis and an S3 store for tests of the program: each test that names no backend of its own, and does
not ask for an embedded larder, runs over all three.

    tests/over_backends.py cargo test --workspace --test http --test local
"""

import os
import subprocess
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "e2e"))

from backends import Backends


def main():
    if len(sys.argv) < 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    with Backends() as servers:
        environment, _ = servers.for_a_case()
        # Databases are made by the tests themselves, one for each larder.
        shared = " ".join(f"{name}={value}" for name, value in environment.items() if not name.startswith("DB"))
        settings = {"LARDER_TEST_DATABASE": "postgresql", "LARDER_TEST_BACKENDS": shared}
        return subprocess.run(sys.argv[1:], env={**os.environ, **settings}).returncode


if __name__ == "__main__":
    sys.exit(main())
