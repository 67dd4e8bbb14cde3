#!/usr/bin/env bash
# release.sh BINARY DIRECTORY : packs a program that is built already. Makes in DIRECTORY:
#
#   larder-VERSION-TARGET.tar.gz          program, licences, documents, unit, Containerfile's parts, Kubernetes manifest, Helm chart, compose stack
#   larder-VERSION-TARGET.cdx.json        what the program is made of (CycloneDX)
#   SHA256SUMS                            of both
#
# The same program and checkout give the same bytes: times are those of the last commit (or SOURCE_DATE_EPOCH).
set -euo pipefail
export LC_ALL=C

binary=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(sed -n '/^\[workspace\.package\]/,/^\[/s/^version = "\(.*\)"$/\1/p' Cargo.toml)
target=${LARDER_TARGET:-$("${RUSTC:-rustc}" -vV | sed -n 's/^host: //p')}
reported=$("$binary" --version)
[ "$reported" = "larder $version" ] || { echo "$binary says \"$reported\"; this checkout is $version" >&2; exit 1; }
name=larder-$version-$target
# 1980, as zip files count, where there is neither a variable nor a commit.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 315532800)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/$name
mkdir -p "$root"
install -m 0755 "$binary" "$root/larder"
cp README.md CHANGELOG.md SECURITY.md ARCHITECTURE.md CONTRIBUTING.md LICENSE-APACHE LICENSE-MIT Containerfile "$root"
cp -R docs "$root/docs"
mkdir "$root/packaging"
cp packaging/larder.service packaging/larder.sysusers.conf packaging/kubernetes.yaml packaging/rootfs.sh "$root/packaging"
cp -R packaging/helm packaging/compose "$root/packaging"
"${PYTHON:-python3}" packaging/sbom.py "$target" >"$work/$name.cdx.json"
cp "$work/$name.cdx.json" "$root/sbom.cdx.json"
chmod -R u=rwX,go=rX "$root"

tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime="@$epoch" -C "$work" -cf - "$name" |
  gzip -9 -n >"$work/$name.tar.gz"
mv "$work/$name.tar.gz" "$work/$name.cdx.json" "$out"
chmod 0644 "$out/$name.tar.gz" "$out/$name.cdx.json"
cd "$out"
sha256sum "$name.cdx.json" "$name.tar.gz" >SHA256SUMS
echo "$out/$name.tar.gz"
