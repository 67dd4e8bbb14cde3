"""larder by itself: what a newcomer meets before any client is configured."""

import json

from harness import ask, expect, expect_equal


def no_configuration(case):
    """With no configuration larder starts, names its built-in repositories, and says that it is well."""
    case.needs_larder()
    case.serve(None)
    described = json.loads(ask(case.listens_at + "/").body)
    expect_equal("name", described["name"], "larder")
    packages = {name: remote["package"] for name, remote in described["remotes"].items()}
    for name, package in {"pypi": "pypi", "npm": "npm", "github": "generic"}.items():
        expect_equal(f"package type of {name}", packages.get(name), package)
    expect(list(packages.values()).count("helm") >= 2, f"fewer than two Helm repositories: {packages}")
    for path in ("/health", "/ready", "/live", "/config"):
        ask(case.listens_at + path)
    expect("larder_" in ask(case.listens_at + "/metrics").body.decode(), "/metrics has nothing of larder's")
    for path, status in (("/api/v1/remote/no-such-repository/x", 404), ("/api/v1/remote/github/%2e%2e/x", 400)):
        error = json.loads(ask(case.listens_at + path, wanted=status).body)
        expect(error.get("code") and isinstance(error.get("error"), str), f"an error without code or message: {error}")


CASES = {"basics-no-configuration": no_configuration}
