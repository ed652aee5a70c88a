#!/usr/bin/env bash
# The long programmes.
#
#   measure.sh bench     builds as shipped, measures, prints a table, writes JSON
#   measure.sh soak      the tests of the suites that are too long for every day: each says `#[ignore = "long: make soak"]`
#
# With a container engine when there is one, or one may be started (engine.sh); without when not.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly WHAT=${1:?measure.sh bench | soak}
readonly LIMIT=${MEASURE_LIMIT:-14400} # seconds

not_there() {
    echo "make $WHAT: not there yet ($1)" >&2
    exit 1
}

bench() {
    [[ -f suites/src/bin/bench.rs ]] || not_there suites/src/bin/bench.rs
    cargo build --locked --release --bins -p cutover -p cutover-host-bin -p guestbook -p cutover-suites
    place_engine || without
    place_run "$LIMIT" "$(target_folder)/release/bench"
}

soak() {
    local file words=()
    for file in $(grep -ls 'long: make soak' suites/tests/*.rs crates/*/tests/*.rs); do
        words+=(--test "$(basename "$file" .rs)")
    done
    ((${#words[@]} > 0)) || not_there "no test says it is for it"
    # The selection of scripts/test.sh: nothing is built a second time.
    cargo build --locked --workspace --all-targets
    place_engine || without
    place_run "$LIMIT" cargo test --locked --workspace --no-fail-fast "${words[@]}" -- \
        --ignored --show-output --test-threads 1
}

without() { echo "without a container engine: what needs one is left out" >&2; }

# shellcheck source=scripts/place.sh
source scripts/place.sh
place_make
case $WHAT in
    bench) bench ;;
    soak) soak ;;
    *) echo "measure.sh bench | soak" >&2; exit 2 ;;
esac
