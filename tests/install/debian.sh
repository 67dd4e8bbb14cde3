#!/usr/bin/env bash
# debian.sh PACKAGE... : makes sure that these Debian packages are there; installs those that are missing.
#
# Needs root (or sudo without a password) only when something is missing. Starts no service: the tests run private
# instances on loopback.
set -euo pipefail

missing=()
for package in "$@"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

root=()
if [ "$(id -u)" != 0 ]; then
  if ! sudo -n true 2>/dev/null; then
    echo "missing Debian packages; install them as root and try again: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  root=(sudo -n)
fi

echo "installing Debian packages: ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# RUNLEVEL=1 keeps invoke-rc.d from starting the daemons of what gets installed.
install() {
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1
}
# The lists may be absent (a bare machine) or too old (404 on a package): in both cases update and try once more.
if ! install; then
  "${root[@]}" apt-get update -qq
  install || { tail -n 20 "$log" >&2; exit 1; }
fi
