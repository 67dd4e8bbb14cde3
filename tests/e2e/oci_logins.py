"""How registries ask who is there: Basic, and tokens from a token server (the challenges of RFC 7617 and of distribution)."""

import base64
import json
import re
import threading

from origin import Resource

USER, PASSWORD = "puller", "correct horse"
_GIVEN = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def _refused(challenge):
    body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
    return Resource(body, "application/json", status=401, headers={"WWW-Authenticate": challenge})


class Basic:
    """User name and password with every request."""

    host = None
    named = True

    def __call__(self, request):
        return None if request.headers.get("Authorization") == _GIVEN else _refused('Basic realm="a registry"')


class Tokens:
    """A token for each image, from `/token`.

    `named`: only for those who log in. `uses`: it is good for so many requests. `scoped`: the challenge says what the token is
    to allow; where it does not, a token that was asked for without it allows nothing.
    """

    host = None

    def __init__(self, *, named, uses=None, scoped=True):
        self.named = named
        self._scoped = scoped
        self._uses = uses
        self._left = {}
        self._lock = threading.Lock()
        self.asked = []

    def __call__(self, request):
        if request.path == "/token":
            return self._give(request)
        image = re.match("/v2/(.+)/(manifests|blobs|tags|referrers)/[^/]+$", request.path)
        scope = f"repository:{image[1]}:pull" if image else ""
        kind, _, token = (request.headers.get("Authorization") or "").partition(" ")
        with self._lock:
            left = self._left.get((token, scope), 0) if kind == "Bearer" else 0
            if left > 0 and scope:
                self._left[token, scope] = left - 1
                return None
        # In another order than usual, with a space after each comma.
        asked = f'scope="{scope}", ' if self._scoped else ""
        return _refused(f'Bearer service="a registry", {asked}realm="http://{self.host}/token"')

    def _give(self, request):
        given = request.headers.get("Authorization")
        if given != (_GIVEN if self.named else None):
            return Resource(b'{"errors":[{"code":"UNAUTHORIZED"}]}', "application/json", status=401)
        scopes = [pair.partition("=")[2] for pair in request.target.partition("?")[2].split("&") if pair.startswith("scope=")]
        scope = scopes[0].replace("%3A", ":").replace("%2F", "/") if scopes else ""
        with self._lock:
            self.asked.append(scope)
            token = f"token-{len(self.asked)}"
            self._left[token, scope] = self._uses or 1_000_000
        body = json.dumps({"access_token": token, "expires_in": 300}).encode()
        return Resource(body, "application/json")
