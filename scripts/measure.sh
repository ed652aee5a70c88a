#!/usr/bin/env bash
# The long programmes.
#
#   measure.sh bench     builds as shipped, measures, prints a table, writes target/bench.json; SECTIONS="commands idle"
#                        measures only those
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
    # No more than is measured: each program is linked as a whole, which takes a minute or two.
    cargo build --locked --release -p cutover -p cutover-host-bin -p guestbook -p cutover-suites \
        --bin cutover --bin cutover-host --bin guestbook --bin bench
    place_engine || without
    install_tools
    # shellcheck disable=SC2086 # one word each
    place_run "$LIMIT" "$(target_folder)/release/bench" ${SECTIONS:-}
}

soak() {
    local file words=()
    for file in $(grep -ls 'long: make soak' {suites,crates/*}/tests/{*.rs,*/main.rs}); do
        words+=(--test "$(basename "${file%/main.rs}" .rs)")
    done
    ((${#words[@]} > 0)) || not_there "no test says it is for it"
    # The selection of scripts/test.sh: nothing is built a second time.
    cargo build --locked --workspace --all-targets
    install_clients
    place_engine || without
    place_run "$LIMIT" cargo test --locked --workspace --no-fail-fast "${words[@]}" -- \
        --ignored --show-output --test-threads 1
}

# What the proxy is measured with and beside; where they cannot be had the benchmark says so.
install_tools() {
    if { command -v wrk && { command -v nginx || [[ -x /usr/sbin/nginx ]]; }; } >/dev/null; then return; fi
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends nginx-light wrk >/dev/null ||
            echo "nginx and wrk could not be installed" >&2
    fi
}

# What backups are read with, and servers that are none of an app's own; where they cannot be had those tests say that they did not run.
install_clients() {
    if { command -v restic && command -v pg_dump && command -v mariadb-dump; } >/dev/null; then return; fi
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        apt_install restic postgresql-client mariadb-client >/dev/null 2>&1 ||
            echo "restic and the databases' clients could not be installed" >&2
    fi
}

without() { echo "without a container engine: what needs one is left out" >&2; }

# shellcheck source=scripts/place.sh
source scripts/place.sh
# shellcheck source=scripts/packages.sh
source scripts/packages.sh
place_make
case $WHAT in
    bench) bench ;;
    soak) soak ;;
    *) echo "measure.sh bench | soak" >&2; exit 2 ;;
esac
