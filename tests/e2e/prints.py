"""What clients print when larder refuses: each client, for five failures, against a real larder.

A case asserts that the client's own output carries what that client can carry of larder's answer (the status, the reason phrase, the
sentence of the body), and that docs/guide/what-clients-print.md shows what is printed. With `--record` it writes its section of that page.
"""

import difflib
import http.client
import json
import re
import threading
import urllib.parse
from dataclasses import dataclass

from harness import ROOT, Failed, ask, expect
from origin import free_port

PAGE = ROOT / "docs" / "guide" / "what-clients-print.md"
# `--record`: the page is written, not compared.
RECORDING = threading.Event()
# Older than any of these: every fixture's file is held back, until a day that is the same in every run.
DAYS = 9000

# Each failure with the repository that it is met with, and its name on the page.
FAILURES = {
    "wrong repository": "pantri",
    "wrong name": "pantry",
    "pattern": "pantry-denied",
    "quarantine": "pantry-held",
    "upstream down": "pantry-down",
}


# What a client may carry of an answer, in the page's words.
WORDS = {"status": "the status", "reason": "the reason phrase", "sentence": "the sentence"}


@dataclass(frozen=True)
class Said:
    """What one command printed.

    `asked` is the path below larder at which the client was refused; `carries` what its output must hold of larder's answer:
    `status`, `reason`, `sentence`.
    """

    command: str
    output: str
    asked: str
    carries: tuple = ()


def repositories(base_url, package, denied, **more):
    """One repository for each failure, all of one upstream; none of the misspelt name."""
    # A remembered 404 says for how long it is; without that, each answer is like the first.
    entry = {"base_url": base_url, "type": "remote", "package": package, "negative_ttl": 0, "cache": {"mutable_ttl": 0}, **more}
    return {
        "pantry": entry,
        "pantry-denied": {**entry, "deny_patterns": [denied]},
        "pantry-held": {**entry, "quarantine_new": True, "quarantine_days": DAYS},
        # Nobody listens there: the port was given to nobody else.
        "pantry-down": {**entry, "base_url": f"http://127.0.0.1:{free_port()}"},
    }


def prints(client, prepare):
    """A case: `prepare(case)` starts larder and gives the client's version and a function of failure and repository to a `Said`."""

    def use(case):
        case.needs_larder()
        version, say = prepare(case)
        parts = [f"## {client}\n\n{version}\n"]
        for failure, repository in FAILURES.items():
            said = say(failure, repository)
            check_carried(case, client, failure, said)
            parts.append(part(case, failure, said))
        compare(client, "\n".join(parts))

    return use


def part(case, failure, said):
    carried = ", ".join(WORDS[what] for what in said.carries) or "nothing of it"
    command, shown = normalised(case, said.command), normalised(case, said.output)
    title = failure[0].upper() + failure[1:]
    return f"### {title}\n\n`{command}`\nOf larder's answer: {carried}.\n\n```text\n{shown}\n```\n"


def check_carried(case, client, failure, said):
    """The client's output holds what it can carry of the answer that larder really gives at that address."""
    status, reason, sentence = answer(case.listens_at, said.asked)
    expect(status >= 400, f"{client}, {failure}: larder answers {status} to {said.asked}\n{said.output}")
    usual = http.client.responses.get(status)
    expect(
        "reason" not in said.carries or reason != usual, f"{client}, {failure}: the reason phrase says only {reason!r}"
    )
    expect(sentence or "sentence" not in said.carries, f"{client}, {failure}: larder's answer to {said.asked} has no sentence")
    # Clients break lines, and quote what stands in JSON.
    printed = folded(said.output)
    for what, text in (("status", str(status)), ("reason", reason), ("sentence", sentence)):
        if what in said.carries:
            expect(folded(text) in printed, f"{client}, {failure}: the {what} {text!r} is not in\n{said.output}")


def folded(text):
    return re.sub(r"[\s\\│|]+", " ", text)


def answer(base, path):
    """Status, reason phrase and sentence of larder's answer to a GET."""
    url = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    try:
        document = json.loads(body)
    except ValueError:
        return response.status, response.reason, None
    return response.status, response.reason, sentence_of(document)


def sentence_of(document):
    if document.get("errors"):
        return document["errors"][0]["message"]
    error = document.get("error")
    return error if isinstance(error, str) else None


# --- the page ----------------------------------------------------------------------------------------------------------

_writing = threading.Lock()

# Clients whose version is not pinned by tests/install/versions.sh.
FROM_THE_SYSTEM = ("skopeo", "dnf")

# What differs from run to run, or is progress, and what stands in its place. Versions stay.
ALWAYS = (
    (r"\x1b\[[0-9;?]*[A-Za-z]", ""),
    (r"\bport=\d+", "port=8000"),
    (r"[^\n]*\r(?!\n)", ""),
    (r'time="[^"]*"', 'time="…"'),
    (r"(?m)^(Using CPython|Resolved \d+ package|Resolving dependencies|Resolved, downloaded and|Progress: |Packages: |\++$).*\n?", ""),
    (r"(?m)^npm error A complete log of this run can be found in: .*\n?", ""),
    (r"(?m)^These authorization settings were found:\n.*\n?", ""),
    (r"(Completed|Failed with errors)( in .*)?(?=\n|$)", r"\1"),
    # dnf: progress, the key's number, the table of what would be installed, and each mirror that it tried, which is one.
    (r"(?m)^\S+ +[\d.]+ +[kM]?B/s .*\n?", ""),
    (r"(?m)^Last metadata expiration check: .*\n?", ""),
    (r"(?m)^Importing GPG key .*\n( .*\n)*", ""),
    (r"(?s)Dependencies resolved\.\n.*?Downloading Packages:\n", ""),
    (r"(?m)^(\[MIRROR\] .*\n)\1+", r"\1"),
    (r"[ \t]+(?=\n|$)", ""),
    (r"\n{3,}", "\n\n"),
)


def normalised(case, text):
    """`text` as it is in every run: larder at 127.0.0.1:8000, upstreams without a port of their own, no times, no temporary paths."""
    text = text.replace(case.listens_at.removeprefix("http://"), "127.0.0.1:8000")
    text = re.sub(rf"{re.escape(str(case.directory))}(/home\d+)?", "/home/user", text)
    text = re.sub(r"127\.0\.0\.1:2\d{4}\b", "127.0.0.1:9000", text)
    for pattern, instead in ALWAYS:
        text = re.sub(pattern, instead, text)
    return text.strip("\n")


def marks(client):
    return f"<!-- recorded: {client} -->\n", f"<!-- end: {client} -->\n"


def compare(client, section):
    """The page shows this section; with `--record`, it does from now on."""
    begin, end = marks(client)
    with _writing:
        page = PAGE.read_text()
        before, found, rest = page.partition(begin)
        shown, closed, after = rest.partition(end)
        if RECORDING.is_set():
            if not found:
                before, after = page.rstrip("\n") + "\n\n", ""
            PAGE.write_text(f"{before}{begin}{section}{end}{after}")
            return
    expect(found and closed, f"{PAGE.name} has no section of {client}; run.py --record writes it")
    if shown.splitlines()[:3] != section.splitlines()[:3] and client in FROM_THE_SYSTEM:
        # Another Debian has another client; what it carries has been checked all the same.
        return
    if shown != section:
        raise Failed(f"{client} prints something else than {PAGE.name} shows (run.py --record writes it anew):\n{difference(shown, section)}")


def difference(shown, section):
    return "\n".join(difflib.unified_diff(shown.splitlines(), section.splitlines(), "the page", "printed", lineterm=""))


def link_to(url, name, **headers):
    """The path below larder of the link in a document that leads to a file of this name."""
    text = ask(url, **headers).body.decode()
    found = re.search(rf'["(\s]([^"\s]*{re.escape(name)})', text)
    expect(found, f"{url} has no link to {name}:\n{text[:500]}")
    return urllib.parse.urlsplit(urllib.parse.urljoin(url, found[1])).path
