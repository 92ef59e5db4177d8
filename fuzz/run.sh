#!/bin/sh
# Runs fuzz targets one after the other with the sanitizers for addresses and leaks, and says what became of each.
# fuzz/run.sh SECONDS [TARGET...]; what is found is left in fuzz/target/run/TARGET.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:?"how many seconds each"}
shift
command -v cargo-fuzz > /dev/null || { echo "cargo install cargo-fuzz, first" >&2; exit 1; }
# The sanitizers and the counting of branches are not for stable compilers, which have them all the same.
export RUSTC_BOOTSTRAP=1 TMPDIR="${TMPDIR:-/dev/shm}"
[ $# -gt 0 ] || set -- $(cargo fuzz list)
cargo fuzz build -s address --target-dir fuzz/target
status=0
for target; do
	place=fuzz/target/run/$target
	mkdir -p "$place/corpus"
	# 64 MiB is what one input may have allocated at a time; new inputs go to the first corpus.
	if ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=16 \
		"fuzz/target/x86_64-unknown-linux-gnu/release/$target" -max_total_time="$seconds" -timeout=20 \
		-malloc_limit_mb=64 -rss_limit_mb=512 -print_final_stats=1 -artifact_prefix="$place/" \
		"$place/corpus" "fuzz/corpus/$target" > "$place/log" 2>&1; then said=ok; else said=FAIL status=1; fi
	echo "$said $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$place/log") inputs"
done
exit $status
