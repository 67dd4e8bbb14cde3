"""Rows, the table, and which goals are met.

Three kinds of goal (`gate`): `exact` ones do not depend on the machine and are all or nothing; `cpu` ones are ratios of
CPU time within one run, gated with a margin; those without a gate are wall-clock figures, which are only reported.
"""

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass

# What a noisy machine may add to a ratio of CPU times before `--gate` calls it a failure.
MARGIN = 1.25


@dataclass
class Row:
    goal: str
    what: str
    larder: str
    nginx: str
    peer: str
    ratio: float
    must: str
    met: bool
    gate: str = ""
    passed: bool = True


def median(values):
    values = [value for value in values if value is not None and value == value]
    return statistics.median(values) if values else float("nan")


def shown(value, unit=""):
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if value != value:
        return "?"
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits} {unit}".strip()


class Report:
    """Collects; the raw rows go to a file as they come."""

    def __init__(self, path):
        self.path = path
        self.rows = []
        path.parent.mkdir(parents=True, exist_ok=True)

    def raw(self, case, **values):
        """One measurement, as it is."""
        self._write({"case": case, "at": round(time.time(), 3), "load": load(), **values})

    def _write(self, line):
        with self.path.open("a") as file:
            file.write(json.dumps(line, default=str) + "\n")

    def _add(self, row):
        self.rows.append(row)
        self._write({"goal_row": True, **asdict(row)})
        print("  " + " | ".join(cells(row)), file=sys.stderr, flush=True)

    def ratio(self, goal, what, larder, nginx, unit="", at_most=None, at_least=None, gate="", peer=None):
        """A goal that compares with nginx in the same run; `peer` is what another registry took."""
        value = larder / nginx if nginx else float("nan")
        met = value <= at_most if at_most is not None else value >= at_least if at_least is not None else None
        must = f"<= {at_most}x" if at_most is not None else f">= {at_least}x" if at_least is not None else ""
        passed = met is not False or gate != "cpu" or (at_most is not None and value <= at_most * MARGIN)
        beside = (shown(nginx, unit), shown(peer, unit))
        self._add(Row(goal, what, shown(larder, unit), *beside, value, must, met, gate, passed))

    def bound(self, goal, what, larder, at_most, unit="", nginx=None, gate="", peer=None):
        """A goal that is a number."""
        met = larder <= at_most
        ratio = larder / nginx if nginx else None
        passed = met or gate == "" or (gate == "cpu" and larder <= at_most * MARGIN)
        self._add(
            Row(
                goal,
                what,
                shown(larder, unit),
                shown(nginx, unit),
                shown(peer, unit),
                ratio,
                f"<= {shown(at_most, unit)}",
                met,
                gate,
                passed,
            )
        )

    def fact(self, goal, what, larder, must, met, nginx="", gate="exact", peer=""):
        """A goal that holds or does not."""
        self._add(Row(goal, what, str(larder), str(nginx), str(peer), None, must, met, gate, met or gate == ""))

    def table(self):
        """All rows as Markdown."""
        lines = ["| goal | what | larder | nginx | registry | ratio | MUST | met |", "|---|---|---|---|---|---|---|---|"]
        return "\n".join(lines + ["| " + " | ".join(cells(row)) + " |" for row in self.rows])

    def missed(self):
        return [row for row in self.rows if row.met is False]

    def failed_gates(self):
        return [row for row in self.rows if not row.passed]


def cells(row):
    ratio = "" if row.ratio is None else shown(row.ratio)
    met = {True: "yes", False: "**no**", None: ""}[row.met]
    return [row.goal, row.what, row.larder, row.nginx, row.peer, ratio, row.must, met]


def load():
    with open("/proc/loadavg") as file:
        return float(file.read().split()[0])
