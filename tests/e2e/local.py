"""Local generic repositories with curl: upload, read, resume, conditions, digests, folders, deletion; and all of it after a restart."""

import hashlib
import json

from archives import noise
from generic import Curl
from harness import expect, expect_equal

BIG = noise(9 * 1024 * 1024 + 5, "local")
SMALL = b"a small file\n" * 50


def curl(case):
    """Three times, with no upstream at all, the last after a restart: each finds what the one before has left."""
    case.needs_larder()
    case.serve(
        {
            "files": {"type": "local"},
            "releases": {"type": "local", "allow_overwrite": False, "max_size": "10MiB", "quota": "12MiB"},
        }
    )

    def use(home, phase):
        get, base = Curl(home), case.repository("files")
        big, small = home / "big.bin", home / "small file.txt"
        big.write_bytes(BIG)
        small.write_bytes(SMALL)
        again = phase != "cold"
        if again:
            kept(get, base)
        uploads(get, base, big, small, again)
        folders(get, base)
        rules(get, case.repository("releases"), big, small, again)
        expect_equal("a file that was deleted", get(f"{base}/gone", "-T", small)[0], 201)
        expect_equal("its deletion", get(f"{base}/gone", "-X", "DELETE")[0], 204)
        expect_equal("a second one", get(f"{base}/gone", "-X", "DELETE")[0], 404)
        expect_equal("what is left of it", get(f"{base}/gone")[0], 404)

    for phase in ("cold", "warm"):
        use(case.home(), phase)
    case.restart_larder()
    use(case.home(), "restarted")


def kept(get, base):
    """What an earlier phase has uploaded, before anything is uploaded anew."""
    status, headers, body = get(f"{base}/dir/big.bin")
    expect_equal("status of an earlier upload", status, 200)
    expect(body == BIG, "an earlier upload has other bytes")
    expect_equal("its tag", headers.get("etag"), f'"sha256-{hashlib.sha256(BIG).hexdigest()}"')


def uploads(get, base, big, small, again):
    sha256 = hashlib.sha256(BIG).hexdigest()
    # curl announces a body of this size with `Expect: 100-continue`, and adds the file's name to a folder.
    status, headers, body = get(f"{base}/dir/", "-T", big, "-H", f"X-Checksum-Sha256: {sha256}")
    expect_equal("status of an upload", status, 200 if again else 201)
    expect_equal("what it says", (json.loads(body)["path"], json.loads(body)["sha256"]), ("dir/big.bin", sha256))
    status, headers, body = get(f"{base}/dir/big.bin")
    expect_equal("status", (status, headers.get("x-artifact-source")), (200, "cache"))
    expect(body == BIG, "the bytes are others")
    expect_equal("cache-control", headers.get("cache-control"), "no-cache")
    expect("repr-digest" in headers, "no Repr-Digest")
    expect_equal("status of a range", get(f"{base}/dir/big.bin", "-r", "100-199")[0], 206)
    part = get.home / "part"
    part.write_bytes(BIG[: 4 << 20])
    expect(get.download(f"{base}/dir/big.bin", part, "-C", "-") == BIG, "a resumed download has other bytes")
    tag = headers["etag"]
    expect_equal("status with its own tag", get(f"{base}/dir/big.bin", "-H", f"If-None-Match: {tag}")[0], 304)
    # Chunked: curl does not know how long its standard input is.
    piped = ["-T", small, "-H", "Transfer-Encoding: chunked", "-H", "Content-Type: text/plain"]
    expect(get(f"{base}/dir/small%20file.txt", *piped)[0] in (200, 201), "a chunked upload")
    status, headers, body = get(f"{base}/dir/small%20file.txt")
    expect_equal("the file", (headers.get("content-type"), body), ("text/plain", SMALL))
    expect_equal("an upload of what is there", get(f"{base}/dir/big.bin", "-T", small, "-H", "If-None-Match: *")[0], 412)
    expect_equal("one with a wrong digest", get(f"{base}/dir/big.bin", "-T", small, "-H", f"X-Checksum-Sha256: {sha256}")[0], 400)
    expect(get(f"{base}/dir/big.bin")[2] == BIG, "a refused upload has changed the file")


def folders(get, base):
    status, headers, body = get(f"{base}/dir/")
    expect_equal("a folder", (status, headers.get("content-type")), (200, "application/json"))
    expect_equal("its files", [file["name"] for file in json.loads(body)["files"]], ["big.bin", "small file.txt"])
    status, headers, body = get(f"{base}/", "-H", "Accept: text/html")
    expect_equal("a page", (status, headers.get("content-type")), (200, "text/html; charset=utf-8"))
    expect(b'href="./dir/"' in body, "the page has no link to a folder")


def rules(get, base, big, small, again):
    expect_equal("a release", get(f"{base}/v1.bin", "-T", big)[0], 200 if again else 201)
    expect_equal("another one in its place", get(f"{base}/v1.bin", "-T", small)[0], 409)
    expect(get(f"{base}/v1.bin")[2] == BIG, "a release has changed")
    expect_equal("what exceeds the quota", get(f"{base}/v2.bin", "-T", big)[0], 507)
    twice = get.home / "twice"
    twice.write_bytes(BIG + BIG)
    expect_equal("what exceeds the size", get(f"{base}/v2.bin", "-T", twice)[0], 413)


CASES = {"local-curl": curl}
