#!/usr/bin/env python3
"""sbom.py TARGET : what larder is made of, as CycloneDX 1.5 JSON on standard output.

The crates that are linked into the program for TARGET, as Cargo.lock pins them, with their checksums and licences. Nothing is built
and nothing is downloaded but what `cargo build` would download. The same lock file gives the same bytes.
"""

import json
import os
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CARGO = os.environ.get("CARGO", "cargo")


def main():
    (target,) = sys.argv[1:]
    command = [CARGO, "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    program = next(package["id"] for package in packages.values() if package["name"] == "larder" and not package["source"])
    edges = {node["id"]: linked(node) for node in metadata["resolve"]["nodes"]}
    found, open_ = {program}, [program]
    while open_:
        for needed in edges[open_.pop()]:
            if needed not in found:
                found.add(needed)
                open_.append(needed)
    checksums = checksums_of(ROOT / "Cargo.lock")
    described = {each: component(packages[each], checksums) for each in found}
    components = sorted((described[each] for each in found - {program}), key=lambda one: one["bom-ref"])
    dependencies = [
        {"ref": described[each]["bom-ref"], "dependsOn": sorted(described[needed]["bom-ref"] for needed in edges[each])}
        for each in found
    ]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {**described[program], "type": "application"}, "properties": [{"name": "target", "value": target}]},
        "components": components,
        "dependencies": sorted(dependencies, key=lambda one: one["ref"]),
    }
    name = json.dumps(bill, sort_keys=True)
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, name)}"
    json.dump(bill, sys.stdout, indent=1, sort_keys=True)
    print()


def linked(node):
    """Ids of what is linked into a crate: neither what only its build script nor what only its tests need."""
    return sorted({each["pkg"] for each in node["deps"] if any(kind["kind"] is None for kind in each["dep_kinds"])})


def checksums_of(lock):
    packages = tomllib.loads(lock.read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in packages}


def component(package, checksums):
    name, version = package["name"], package["version"]
    found = {"type": "library", "name": name, "version": version, "bom-ref": f"pkg:cargo/{name}@{version}"}
    found["purl"] = found["bom-ref"]
    if package["license"]:
        # Old crates write a slash where the expression has OR.
        found["licenses"] = [{"expression": package["license"].replace(" / ", " OR ").replace("/", " OR ")}]
    if checksums.get((name, version)):
        found["hashes"] = [{"alg": "SHA-256", "content": checksums[name, version]}]
    return found


if __name__ == "__main__":
    main()
