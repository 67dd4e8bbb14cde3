"""npm packages: packuments in both forms, tarballs, and the endpoints beside them."""

import base64
import gzip
import hashlib
import json

from archives import noise, tar_gz
from origin import Resource

ABBREVIATED = "application/vnd.npm.install-v1+json"
KEYS = {
    "keys": [
        {
            "expires": None,
            "keyid": "SHA256:test",
            "keytype": "ecdsa-sha2-nistp256",
            "scheme": "ecdsa-sha2-nistp256",
            "key": "MFkw",
        }
    ]
}

# Fields that the abbreviated form keeps of a version.
KEPT = ("name", "version", "dependencies", "bin", "dist", "engines")

# name: ({version: dependencies}, dist-tags, size of the tarball's ballast)
PACKAGES = {
    "pantry-jam": (
        {"1.0.0": {}, "1.1.0": {"pantry-jar": "^2.0.0"}, "2.0.0-beta.1": {}},
        {"latest": "1.1.0", "next": "2.0.0-beta.1"},
        0,
    ),
    "pantry-jar": ({"2.0.0": {}}, {"latest": "2.0.0"}, 2_500_000),
    "@pantry/spoon": ({"1.0.0": {"pantry-jam": "^1.0.0"}}, {"latest": "1.0.0"}, 1000),
}


def tarball_path(name, version):
    return f"/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"


def tarball(name, version, dependencies, ballast):
    manifest = {
        "name": name,
        "version": version,
        "main": "index.js",
        "dependencies": dependencies,
        "bin": {name.rpartition("/")[2]: "cli.js"},
    }
    members = {
        "package/package.json": json.dumps(manifest),
        "package/index.js": f"module.exports = {json.dumps(name + '@' + version)};\n",
        "package/cli.js": "#!/usr/bin/env node\nconsole.log(require('./package.json').version);\n",
    }
    if ballast:
        members["package/ballast.bin"] = noise(ballast, name + version)
    return tar_gz(members), manifest


# The registry before the newest versions were published.
BEFORE = {
    "pantry-jam": ({"1.0.0": {}}, {"latest": "1.0.0"}, 0),
    "pantry-jar": ({"1.0.0": {}}, {"latest": "1.0.0"}, 0),
    "@pantry/spoon": ({"0.9.0": {}}, {"latest": "0.9.0"}, 0),
}


def serve(origin, packages=PACKAGES):
    """Fills `origin`; gives {"name@version": tarball}."""
    tarballs = {}
    for name, (versions, tags, ballast) in packages.items():
        described = {}
        for version, dependencies in versions.items():
            body, manifest = tarball(name, version, dependencies, ballast)
            tarballs[f"{name}@{version}"] = body
            path = tarball_path(name, version)
            origin.put(path, body, immutable=True)
            described[version] = {
                **manifest,
                "_id": f"{name}@{version}",
                "dist": dist(origin.url + path, body),
                "engines": {"node": ">=4"},
            }
        full = {
            "_id": name,
            "_rev": "3-abc",
            "name": name,
            "dist-tags": tags,
            "versions": described,
            "time": {
                "created": "2020-01-01T00:00:00.000Z",
                "modified": "2020-06-01T00:00:00.000Z",
                **dict.fromkeys(versions, "2020-01-02T00:00:00.000Z"),
            },
            "description": "a thing of the pantry",
            "x-unknown": {"a": 1.10, "b": [None, True]},
        }
        short = {
            "name": name,
            "modified": "2020-06-01T00:00:00.000Z",
            "dist-tags": tags,
            "versions": {
                version: {key: value[key] for key in KEPT if key in value} for version, value in described.items()
            },
        }
        # A scope's slash arrives encoded or not; `Request.path` is decoded, so both find this.
        origin.answer(f"/{name}", packument(full, short))
        for version in [*versions, *tags]:
            origin.put(f"/{name}/{version}", json.dumps(described[tags.get(version, version)]), "application/json")
        origin.put(f"/-/package/{name}/dist-tags", json.dumps(tags), "application/json")
    origin.put("/-/ping", "{}", "application/json")
    origin.put("/-/npm/v1/keys", json.dumps(KEYS), "application/json")
    found = {
        "objects": [
            {
                "package": {
                    "name": "pantry-jam",
                    "version": "1.1.0",
                    "description": "found",
                    "links": {},
                    "maintainers": [],
                    "keywords": [],
                    "date": "2020-01-02T00:00:00.000Z",
                }
            }
        ],
        "total": 1,
        "time": "x",
    }
    origin.put("/-/v1/search", json.dumps(found), "application/json")
    origin.answer("/-/npm/v1/security/advisories/bulk", advisories)
    return tarballs


def dist(url, body):
    return {
        "integrity": "sha512-" + base64.b64encode(hashlib.sha512(body).digest()).decode(),
        "shasum": hashlib.sha1(body).hexdigest(),
        "tarball": url,
        "signatures": [{"keyid": "SHA256:test", "sig": "MEUC"}],
    }


def packument(full, short):
    def answer(request):
        if ABBREVIATED in request.headers.get("Accept", ""):
            return Resource(json.dumps(short).encode(), ABBREVIATED, headers={"Vary": "accept"})
        return Resource(json.dumps(full).encode(), "application/json", headers={"Vary": "accept"})

    return answer


def advisories(request):
    """An advisory for pantry-jam, if the question arrived as npm asked it: POST, gzip, a list of versions."""
    try:
        asked = json.loads(gzip.decompress(request.body))
    except (OSError, ValueError):
        return Resource(b'{"error": "not a gzip body of JSON"}', "application/json", status=400)
    if request.method != "POST" or "pantry-jam" not in asked:
        return Resource(b"{}", "application/json")
    advisory = {
        "id": 1,
        "url": "https://example.com/1",
        "title": "sticky",
        "severity": "low",
        "vulnerable_versions": "<1.2.0",
        "cwe": [],
        "cvss": {"score": 0, "vectorString": None},
    }
    return Resource(json.dumps({"pantry-jam": [advisory]}).encode(), "application/json")
