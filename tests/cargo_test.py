#!/usr/bin/env python3
"""Runs `cargo test` with these arguments; a test that fails runs once more, when nothing else does.

Many tests start real servers and wait for what they do within a time; on a machine with two processors one of two thousand is late now and
then. One that fails twice is wrong, and so are more than a few at once. One that passes then is named at the end: it hides a mistake, be it
its own, until somebody has looked at it.
"""

import re
import subprocess
import sys

# More than these are no matter of a busy machine.
MOST = 3

RUNNING = re.compile(r"^ +(?:Running .*\((?P<path>\S+)\)|Doc-tests (?P<doc>\S+))$")
PASSED = re.compile(r"^test result: \w+\. (\d+) passed;")
TARGET = re.compile(r"^    `(?P<arguments>[^`]+)`$")


class Reading:
    """What cargo prints, read line by line: which tests of which targets have failed."""

    def __init__(self):
        self.failed = []  # (what ran, the names of its tests that failed)
        self.targets = []  # how cargo calls those that failed, in the same order
        self.passed = 0
        self._current = None
        self._names = None

    def line(self, line):
        running = RUNNING.match(line)
        if running:
            self._current, self._names = running["path"] or running["doc"], None
        elif line == "failures:":
            # It comes twice: the second one has the names, without anything between them.
            self._names = []
        elif self._names is not None and line.startswith("    "):
            self._names.append(line.strip())
        elif line.startswith("test result: FAILED"):
            self.failed.append((self._current, self._names or []))
            self._names = None
        passed = PASSED.match(line)
        if passed:
            self.passed += int(passed[1])
        target = TARGET.match(line)
        if target:
            self.targets.append(target["arguments"].split())


def run(command):
    """Runs it and passes on what it prints; gives its exit code and what was read."""
    reading = Reading()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as child:
        for line in child.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            reading.line(line.rstrip("\n"))
    return child.returncode, reading


def again(cargo, arguments, reading):
    """Runs what failed once more, one test at a time; gives the names of those that failed again, or None if that cannot be told."""
    names = [name for _, names in reading.failed for name in names]
    if len(reading.targets) != len(reading.failed) or not all(names for _, names in reading.failed):
        return None
    if not 0 < len(names) <= MOST:
        return None
    wrong = []
    for target, (_, names) in zip(reading.targets, reading.failed):
        # The whole workspace's features, so that nothing is compiled anew: the package is not named.
        which = target[2:] if target[0] == "-p" else target
        code, reading = run([*cargo, *arguments, *which, "--", "--exact", "--test-threads", "1", *names])
        # What did not run has not passed.
        if code != 0 or reading.passed < len(names):
            wrong += names
    return wrong


def main():
    cargo, arguments = [sys.argv[1], "test"], sys.argv[2:]
    code, reading = run([*cargo, *arguments, "--no-fail-fast"])
    if code == 0:
        return 0
    wrong = again(cargo, arguments, reading)
    failed = [name for _, names in reading.failed for name in names]
    if wrong is None or wrong:
        print(f"\nfailed: {', '.join(wrong or failed) or 'see above'}", flush=True)
        return code
    for name in failed:
        print(f"\nflaky: {name} failed, and passed when it ran alone. Its first failure stands above; it is to be looked at", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
