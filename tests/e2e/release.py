"""The tarball that `make release` makes of a program: what is in it, and that the same program gives the same bytes."""

import hashlib
import json
import os
import re
import tarfile

from harness import ROOT, expect, expect_equal, run

WANTED = (
    "larder",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "Containerfile",
    "docs/operate/running.md",
    "packaging/larder.service",
    "packaging/kubernetes.yaml",
    "packaging/helm/larder/Chart.yaml",
    "packaging/compose/compose.yaml",
    "sbom.cdx.json",
)


def packed(case, name):
    """Runs the packing in a directory of its own; gives {file name: content}."""
    case.needs_larder()
    out = case.directory / name
    # cargo and rustc are asked what the program is made of, with the caller's environment.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1704164645"}
    run([ROOT / "packaging" / "release.sh", case.binary, out], cwd=case.directory, env=environment)
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


def tarball(case):
    files = packed(case, "once")
    expect(files == packed(case, "twice"), "packed twice, the files differ")
    for line in files["SHA256SUMS"].decode().splitlines():
        digest, name = line.split()
        expect_equal(f"SHA-256 of {name}", hashlib.sha256(files.pop(name)).hexdigest(), digest)
    expect_equal("files without a checksum", sorted(files), ["SHA256SUMS"])
    [archive] = (case.directory / "once").glob("larder-*.tar.gz")
    root = archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as opened:
        members = {member.name: member for member in opened}
        for name in WANTED:
            expect(f"{root}/{name}" in members, f"{name} is not in the tarball")
        for member in members.values():
            expect_equal(f"owner and time of {member.name}", (member.uid, member.gid, member.mtime), (0, 0, 1704164645))
        expect_equal("mode of the program", members[f"{root}/larder"].mode, 0o755)
        program = case.directory / "larder"
        program.write_bytes(opened.extractfile(f"{root}/larder").read())
        program.chmod(0o755)
        bill = json.load(opened.extractfile(f"{root}/sbom.cdx.json"))
    version = run([program, "--version"], cwd=case.directory, env={}).split()[1]
    expect(root.startswith(f"larder-{version}-"), f"{root} holds version {version}")
    locked = (ROOT / "Cargo.lock").read_text()
    for component in bill["components"]:
        known = rf'name = "{re.escape(component["name"])}"\nversion = "{re.escape(component["version"])}"'
        expect(re.search(known, locked), f"{component['bom-ref']} is not in Cargo.lock")
    names = {component["name"] for component in bill["components"]}
    for name, there in (("tokio", True), ("hyper", True), ("libsqlite3-sys", True), ("tempfile", True), ("larder-testkit", False)):
        expect_equal(f"{name} among what the program is made of", name in names, there)


CASES = {"release-tarball": tarball}
