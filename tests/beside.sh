#!/usr/bin/env bash
# beside.sh FIRST SECOND : runs two commands at once; fails if one of them does.
#
# What FIRST prints is shown when both have ended, what SECOND prints at once. Neither is ended because the other has failed: FIRST may be
# installing packages, which is not to be broken off.
set -euo pipefail

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Words without quoting: a command and its arguments.
$1 >"$log" 2>&1 </dev/null &
first=$!
$2 </dev/null &
second=$!
# Whoever interrupts this one means both, and commands in the background do not hear of it.
trap 'kill "$first" "$second" 2>/dev/null; exit 130' INT TERM

code=0
wait "$second" || code=$?
wait "$first" || code=$?
cat "$log"
exit "$code"
