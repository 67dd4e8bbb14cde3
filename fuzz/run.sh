#!/bin/sh
# Runs fuzz targets with libFuzzer: fuzz/run.sh SECONDS [TARGET]. Works with the toolchain that builds larder: no nightly, no cargo-fuzz.
# With cargo-fuzz and a nightly toolchain, `cargo fuzz run TARGET` does the same with address sanitizer.
# FEATURES= (empty) leaves out the targets that need the whole program.
set -eu
cd "$(dirname "$0")"
seconds=${1:-20}
features=${FEATURES-program}
built=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
 -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg=fuzzing"
coverage=$(printf '%s' "$coverage" | tr '\n' ' ')
# With --target, build scripts and macros are not instrumented.
RUSTFLAGS="${RUSTFLAGS:-} $coverage" cargo build --release --target "$host" --features "$features" ${2:+--bin "$2"}
failed=
for file in fuzz_targets/*.rs; do
    name=$(basename "$file" .rs)
    program=$built/$host/release/$name
    if [ -n "${2:-}" ] && [ "$2" != "$name" ]; then continue; fi
    if [ ! -x "$program" ]; then continue; fi
    # New inputs go to a folder that is not kept; what the corpus is worth adding is chosen by hand.
    mkdir -p "artifacts/$name" "$built/found/$name"
    echo "== $name"
    log=$built/found/$name.log
    "$program" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="artifacts/$name/" "$built/found/$name" "corpus/$name" >"$log" 2>&1 || failed="$failed $name"
    tail -12 "$log"
done
if [ -n "$failed" ]; then
    echo "what was found is in fuzz/artifacts, what was said in $built/found:$failed" >&2
    exit 1
fi
