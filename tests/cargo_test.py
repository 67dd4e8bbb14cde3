#!/usr/bin/env python3
"""Runs every test that `cargo test` with these arguments runs, two programs of tests at a time; a test that fails runs once more, when
nothing else does.

cargo runs one program of tests after the other, and most of them wait most of the time: for a server to start, for a lease to end. Two at a
time take little more than half as long. What is bounded by milliseconds, or takes both processors by itself, runs alone after that.

Many tests start real servers and wait for what they do within a time; on a machine with two processors one of two thousand is late now and
then. One that fails twice is wrong, and so are more than a few at once. One that passes then is named at the end: it hides a mistake, be it
its own, until somebody has looked at it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# More than these are no matter of a busy machine.
MOST = 3

# Programs of tests at a time. Each runs as many tests at a time as there are processors.
AT_A_TIME = 2

# A program that takes longer hangs: it is ended, and what it has printed shows where. The longest takes two minutes.
LIMIT = 900

# These begin first, so that none of them is left over at the end. One that is missing here only makes the whole take longer.
LONG = [
    "larder --test object_store",
    "engine --test faults",
    "larder --test airgap",
    "larder --test migrate",
    "larder --test http",
    "larder --test million",
    "larder --test freed",
    "larder --test scrub",
    "engine --test hazards",
    "engine --test full_disk",
    "engine --test mirrors",
    "larder --test hostile",
    "formats --test budgets",
]

# These ask for milliseconds, or take both processors by themselves: each has the machine for itself, after the others.
ALONE = {
    "budget --lib",
    "engine --test coalesce",
    "engine --test overdue",
    "larder --test bad_documents",
    "larder --test bounded",
    "larder --test cluster",
    "larder --test edge",
    "larder --test shares",
    "sendfile --test stream",
    "storage --test crash",
    "storage --test notices",
    "storage --test start",
    "upstream --lib",
}

PASSED = re.compile(r"^test result: \w+\. (\d+) passed;", re.MULTILINE)


class Program:
    """What cargo has built of the tests of a library, of a program, or of a file in `tests/`."""

    def __init__(self, artifact):
        kind, target = artifact["target"]["kind"][0], artifact["target"]["name"]
        self.folder = Path(artifact["manifest_path"]).parent
        self.path = artifact["executable"]
        # How cargo is told to run this one alone. The package is not named: that would choose other features, and compile all anew.
        self.option = {"test": f"--test {target}", "bin": f"--bin {target}"}.get(kind, "--lib")
        self.name = f"{self.folder.name} {self.option}"

    def run(self, *arguments):
        # As cargo does: in the folder of its package, whose manifest some libraries look for.
        environment = {**os.environ, "CARGO_MANIFEST_DIR": str(self.folder)}
        return Result(self, *execute(self.name, [self.path, *arguments], self.folder, environment))


class Examples:
    """The examples in comments. They have no program: the compiler makes one of each when it runs."""

    name = "examples in comments"
    option = "--doc"

    def __init__(self, cargo, arguments):
        self._command = [*cargo, "test", *arguments, self.option, "--no-fail-fast"]

    def run(self):
        return Result(self, *execute(self.name, self._command))


class Result:
    """How a run of a program went."""

    def __init__(self, program, code, text):
        self.program = program
        self.is_good = code == 0
        self.passed = sum(int(number) for number in PASSED.findall(text))
        self.failed = failures(text)

    def names(self):
        """What failed: each test, or, where there are no names (a process that was killed), the whole program."""
        return [f"{self.program.name}: {test}" for test in self.failed] or [self.program.name]


def failures(text):
    """The names of the tests that failed. libtest prints them after the second line `failures:`; the first one is above what they printed."""
    names, is_list = [], False
    for line in text.splitlines():
        if line == "failures:":
            names, is_list = [], True
        elif is_list and line.startswith("    "):
            names.append(line.strip())
        elif line.startswith("test result:"):
            is_list = False
    return names


class Running:
    """The processes that run now, so that none is left behind when this one is told to end."""

    def __init__(self):
        # Signals come in between anywhere.
        self._lock = threading.RLock()
        self._groups = set()
        self._is_over = False

    def start(self, command, **options):
        with self._lock:
            if self._is_over:
                raise SystemExit(1)
            # A group of its own, with all the servers that it starts.
            child = subprocess.Popen(command, start_new_session=True, **options)
            self._groups.add(child.pid)
        return child

    def ended(self, child):
        with self._lock:
            self._groups.discard(child.pid)

    def end_all(self):
        with self._lock:
            self._is_over = True
            for group in self._groups:
                kill_group(group)


RUNNING = Running()
PRINTING = threading.Lock()


def kill_group(group):
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def execute(name, command, folder=None, environment=None):
    """Runs it to its end, then prints all that it has said; gives its exit code and that text."""
    began = time.monotonic()
    # A file and no pipe: a server that outlives its test for a moment would hold the pipe open.
    with tempfile.TemporaryFile() as said:
        options = {"cwd": folder, "env": environment, "stdin": subprocess.DEVNULL, "stdout": said}
        child = RUNNING.start(command, **options, stderr=subprocess.STDOUT)
        try:
            code, end = child.wait(LIMIT), ""
        except subprocess.TimeoutExpired:
            kill_group(child.pid)
            code, end = child.wait(), f"has not ended within {LIMIT} s"
        RUNNING.ended(child)
        said.seek(0)
        text = said.read().decode(errors="replace")
    if code < 0:
        text += f"\n{name} {end or 'was ended by ' + signal.Signals(-code).name}\n"
    with PRINTING:
        print(f"     Running {name}: {time.monotonic() - began:.1f} s\n{text}", flush=True)
    return code, text


def build(cargo, arguments):
    """Builds all tests; gives their programs: none if that failed."""
    command = [*cargo, "test", *arguments, "--no-run", "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if built.returncode != 0:
        return []
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    artifacts = [message for message in messages if message["reason"] == "compiler-artifact"]
    return [Program(artifact) for artifact in artifacts if artifact["profile"]["test"] and artifact["executable"]]


def run_all(programs):
    """Runs everything once; gives the results."""
    place = {name: index for index, name in enumerate(LONG)}
    programs = sorted(programs, key=lambda program: (place.get(program.name, len(place)), program.name))
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        beside = pool.map(lambda program: program.run(), [program for program in programs if program.name not in ALONE])
    return [*beside, *(program.run() for program in programs if program.name in ALONE)]


def again(bad):
    """Runs what failed once more, one test at a time; gives the names of those that failed again, or None if that cannot be told."""
    if not all(result.failed and isinstance(result.program, Program) for result in bad):
        return None
    if sum(len(result.failed) for result in bad) > MOST:
        return None
    wrong = []
    for result in bad:
        second = result.program.run("--exact", "--test-threads", "1", *result.failed)
        # What did not run has not passed.
        if not second.is_good or second.passed < len(result.failed):
            wrong += result.names()
    return wrong


def main():
    cargo, arguments = [sys.argv[1]], sys.argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: RUNNING.end_all())
    programs = build(cargo, arguments)
    if not programs:
        print("failed: the tests were not built, or there are none")
        return 1
    began = time.monotonic()
    results = run_all([*programs, Examples(cargo, arguments)])
    passed = sum(result.passed for result in results)
    print(f"{passed} tests of {len(programs)} programs passed, in {time.monotonic() - began:.0f} s", flush=True)
    bad = [result for result in results if not result.is_good]
    failed = [name for result in bad for name in result.names()]
    wrong = again(bad)
    if wrong is None or wrong:
        print(f"\nfailed: {', '.join(wrong or failed)}", flush=True)
        return 1
    for name in failed:
        print(f"\nflaky: {name} failed, and passed when it ran alone. Its first failure stands above; it is to be looked at", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
