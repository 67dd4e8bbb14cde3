"""A signing key for one test, in a keyring of its own."""

import subprocess
from contextlib import contextmanager

from harness import environment, run, tool


class Signer:
    def __init__(self, home):
        self._home = home
        self._environment = environment(home, GNUPGHOME=str(home / "gpg"))
        (home / "gpg").mkdir(mode=0o700)
        self._gpg("--passphrase", "", "--quick-gen-key", "tester <tester@example.com>", "rsa2048", "sign", "0")

    @property
    def home(self):
        """gpg's own directory, for programs that call gpg themselves."""
        return self._home / "gpg"

    def detach_sign(self, path):
        """An armored signature beside `path`."""
        self._gpg("--armor", "--detach-sign", path)

    def _gpg(self, *arguments):
        run([tool("gpg"), "--batch", "--quiet", "--yes", *arguments], cwd=self._home, env=self._environment)

    def public_key(self, *, armored):
        """The public key, as a file that `helm --keyring` (binary) or apt's `signed-by` (armored) reads."""
        path = self._home / ("key.asc" if armored else "key.gpg")
        self._gpg(*(["--armor"] if armored else []), "--output", path, "--export")
        return path

    def clearsign(self, text):
        (self._home / "plain").write_text(text)
        self._gpg("--clearsign", "--output", self._home / "signed", self._home / "plain")
        return (self._home / "signed").read_text()

    def close(self):
        """gpg leaves an agent running; this ends the one of this keyring."""
        subprocess.run(
            [tool("gpgconf"), "--kill", "gpg-agent"],
            env=self._environment,
            capture_output=True,
            timeout=20,
            check=False,
        )


@contextmanager
def signer(case):
    made = Signer(case.home())
    try:
        yield made
    finally:
        made.close()
