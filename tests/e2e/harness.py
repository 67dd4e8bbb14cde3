"""What every end-to-end case stands on: a larder of its own, upstreams of its own, clients in a clean environment.

A case runs its clients four times, each time with empty client caches: *cold* (larder is empty), *warm* (nothing that
is immutable may be asked of the upstream again), *stopped* (the upstream refuses connections) and *restarted* (so does
larder's memory: all it serves comes from its data directory).
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from origin import Origin, free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = Path(os.environ.get("LARDER_TEST_TOOLS") or ROOT / "target" / "e2e-tools").resolve()
STEP_SECONDS = 120
PHASES = ("cold", "warm", "stopped", "restarted")


class Failed(Exception):
    """A case went wrong; the text is what the user reads."""


class Missing(Exception):
    """Something that the case needs is not there: a client, or larder itself."""


def tool(name):
    """Path of an installed client: a pinned one if there is one, else the system's."""
    pinned = TOOLS / "bin" / name
    found = pinned if pinned.exists() else shutil.which(name)
    if not found:
        raise Missing(f"{name} is not installed; tests/install/clients.sh installs it")
    return str(found)


def expect(condition, message):
    if not condition:
        raise Failed(message)


def expect_equal(what, got, wanted):
    expect(got == wanted, f"{what}: got {got!r}, expected {wanted!r}")


def last_lines(text, count=25):
    return "\n".join(text.strip().splitlines()[-count:])


def run(arguments, *, cwd, env, seconds=STEP_SECONDS, fails=False):
    """Runs one client command to its end and gives what it printed on standard output.

    `fails` says that a failure is what the case expects. A command that takes too long is ended with all its children.
    """
    arguments = [str(argument) for argument in arguments]
    shown = " ".join([Path(arguments[0]).name, *arguments[1:]])
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            arguments, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    printed = last_lines("\n".join(texts))
    expect(code is not None, f"`{shown}` took longer than {seconds} s\n{printed}")
    if fails:
        expect(code != 0, f"`{shown}` was expected to fail\n{printed}")
        return "\n".join(texts)
    expect(code == 0, f"`{shown}` ended with {code}\n{printed}")
    return texts[0]


# Loopback needs no proxy, whatever the caller's environment says.
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Answer:
    status: int
    headers: object
    body: bytes

    @property
    def type(self):
        return self.headers.get_content_type()

    def shown(self):
        """The body for a message: text as it is, anything else by its length."""
        text = self.body.decode(errors="replace")
        is_text = all(character.isprintable() or character.isspace() for character in text)
        return last_lines(text) if is_text and "\ufffd" not in text else f"{len(self.body)} bytes of {self.type}"


def ask(url, method="GET", wanted=200, **headers):
    """One request by Python itself; an underscore in a header's name stands for a dash.

    Fails with what the server said unless the status is `wanted`.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        response = _DIRECTLY.open(urllib.request.Request(url, method=method, headers=named), timeout=20)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        answer = Answer(response.status, response.headers, response.read())
    expect(answer.status == wanted, f"{method} {url}: got {answer.status}, expected {wanted}\n{answer.shown()}")
    return answer


class Larder:
    """A running larder with a configuration, a data directory and a port of its own."""

    def __init__(self, binary, directory, remotes, settings, environment):
        self.port = free_port()
        self._environment = environment
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._log = directory / "larder.log"
        self._command = [binary, "serve", "--listen", f"127.0.0.1:{self.port}", "--data-dir", directory / "data"]
        if remotes is not None:
            config = directory / "larder.yaml"
            # JSON is YAML, and needs no library to be written.
            settings = {key: value(self.url) if callable(value) else value for key, value in settings.items()}
            config.write_text(json.dumps({"drain": 0, **settings, "remotes": remotes}, indent=2) + "\n")
            self._command += ["--config", config]
        self._process = None

    def start(self):
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._directory),
            "RUST_BACKTRACE": "1",
            "LARDER_LOG_FORMAT": "json",
            **self._environment,
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in self._command], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Failed(f"larder ended with {self._process.returncode} at its start\n{self.log_tail()}")
            try:
                # Over backends /live answers before they do.
                ask(self.url + ("/ready" if self._environment else "/live"))
                return
            except (OSError, Failed):
                time.sleep(0.02)
        raise Failed(f"larder did not answer within 10 s\n{self.log_tail()}")

    @property
    def pid(self):
        return self._process.pid

    def log_tail(self):
        return last_lines(self._log.read_text(errors="replace")) if self._log.exists() else ""

    def log_lines(self, text):
        """The lines of the log with `text` in them, as objects."""
        return [json.loads(line) for line in self._log.read_text(errors="replace").splitlines() if text in line]

    def stop(self):
        """Ends larder as an init system would; gives what was wrong with the way it ended, or None."""
        process, self._process = self._process, None
        if process is None:
            return None
        if process.poll() is not None:
            return f"larder had ended with {process.returncode}\n{self.log_tail()}"
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "larder was still running 15 s after SIGTERM"
        if code != 0:
            return f"larder ended with {code} after SIGTERM\n{self.log_tail()}"
        # Nothing that a client or an upstream does is an error of larder's own.
        faults = [line for line in self._log.read_text(errors="replace").splitlines() if is_fault(line)]
        return "larder logged errors:\n" + "\n".join(faults[:5]) if faults else None


def is_fault(line):
    """Whether a line of the log tells of a fault inside larder: a panic, or the level ERROR (lines are JSON)."""
    return "panicked at" in line or '"level":"ERROR"' in line


class Case:
    """One client against one larder. Use as a context manager.

    With `binary` None there is no larder: the clients talk to the upstream itself, once. That tells a mistake of a test
    from one of larder's. With `backends` larder runs over them instead of files.
    """

    def __init__(self, binary, backends=None):
        self._binary = binary
        self._backends = backends
        self._more, self._environment = self.settings_of_another()
        self._origins = []
        self._larder = None
        self._direct = {}
        self._homes = 0
        # A short path: gpg-agent's socket lives below it, and a socket's path is limited to 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="larder-e2e-", dir="/tmp"))

    @property
    def direct(self):
        return self._binary is None

    @property
    def binary(self):
        """The program under test."""
        return self._binary

    def settings_of_another(self):
        """Further keys of the configuration of one more larder, with a place of its own, and its environment."""
        environment, more = self._backends.for_a_case() if self._backends else ({}, {})
        return more, environment

    def needs_larder(self):
        """Ends a case that would show nothing of a client or of an upstream alone."""
        if self.direct:
            raise Missing("it needs larder")

    def origin(self, name="upstream"):
        """A new upstream."""
        self._origins.append(Origin(name))
        return self._origins[-1]

    def origins(self):
        """The upstreams made so far."""
        return list(self._origins)

    def serve(self, remotes, bases=None, **settings):
        """Starts larder with these `remotes` (None: with no configuration at all).

        `bases` has the URL that stands for a remote when there is no larder, if that is not its `base_url`. `settings` are
        further keys of the configuration; a function among them is called with larder's own URL.
        """
        if self.direct:
            self._direct = {name: (bases or {}).get(name, entry["base_url"]) for name, entry in remotes.items()}
            return
        settings = {**self._more, **settings}
        self._larder = Larder(self._binary, self.directory, remotes, settings, self._environment)
        self._larder.start()

    def stop_larder(self):
        """Ends larder; a case may then serve again, with other remotes."""
        wrong, self._larder = self._larder.stop(), None
        expect(wrong is None, wrong)

    def restart_larder(self):
        """Ends larder and starts it again, on the same data directory."""
        wrong = self._larder.stop()
        expect(wrong is None, wrong)
        self._larder.start()

    def repository(self, name):
        """URL of a repository, with no slash at its end."""
        return self._direct[name] if self.direct else f"{self._larder.url}/api/v1/remote/{name}"

    @property
    def listens_at(self):
        """URL of larder itself: what every link that a client keeps must begin with."""
        return self._larder.url

    def flush(self):
        """Makes larder forget what it holds."""
        ask(f"{self._larder.url}/cache/flush", method="PUT")

    def log_lines(self, text):
        """The lines of larder's log with `text` in them, as objects."""
        return self._larder.log_lines(text)

    @property
    def larder_pid(self):
        return self._larder.pid

    def home(self):
        """A new, empty home directory."""
        self._homes += 1
        home = self.directory / f"home{self._homes}"
        (home / "tmp").mkdir(parents=True)
        return home

    def phases(self, use, *, revalidates=True):
        """Calls `use(home, phase)` once for each phase, and counts what the upstream was asked.

        `revalidates` says that clients read documents that larder must check on every request (`mutable_ttl: 0`).
        """
        for phase in PHASES[:1] if self.direct else PHASES:
            if phase == "stopped":
                for origin in self._origins:
                    origin.stop()
            if phase == "restarted":
                wrong = self._larder.stop()
                expect(wrong is None, wrong)
                self._larder.start()
            marks = [origin.mark() for origin in self._origins]
            try:
                use(self.home(), phase)
                if not self.direct:
                    asked = [
                        request
                        for origin, mark in zip(self._origins, marks, strict=True)
                        for request in origin.requests(mark)
                    ]
                    check_requests(phase, asked, revalidates)
            except Failed as failure:
                tail = f"\n--- larder's log ---\n{self._larder.log_tail()}" if self._larder else ""
                raise Failed(f"[{phase}] {failure}{tail}") from None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        wrong = self._larder.stop() if self._larder else None
        for origin in self._origins:
            origin.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        if wrong and kind is None:
            raise Failed(wrong)


def check_requests(phase, asked, revalidates):
    """The promise of a cache, in numbers: each immutable file is downloaded once, and never asked for again."""
    immutable = [request for request in asked if request.immutable]
    listing = "\n".join(str(request) for request in asked)
    if phase == "cold":
        downloads = [f"{request.headers.get('Host')}{request.path}" for request in immutable if request.method == "GET"]
        expect(downloads, f"the upstream saw no download at all; it saw:\n{listing}")
        twice = sorted({path for path in downloads if downloads.count(path) > 1})
        expect(not twice, f"downloaded more than once: {', '.join(twice)}; the upstream saw:\n{listing}")
        partial = [str(request) for request in immutable if request.headers.get("Range")]
        expect(not partial, "a file was asked of the upstream in parts:\n" + "\n".join(partial))
    if phase == "warm":
        expect(not immutable, "the upstream was asked again for immutable files:\n" + "\n".join(map(str, immutable)))
        expect(asked or not revalidates, "the upstream was asked for nothing: are requests counted at all?")


def environment(home, **more):
    """A client's environment: nothing of the caller's settings but where programs are."""
    clean = {
        "PATH": f"{TOOLS / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "LANG": "C.UTF-8",
        "CI": "1",
    }
    return {**clean, **more}
