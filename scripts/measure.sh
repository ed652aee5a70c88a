#!/usr/bin/env bash
# Builds as shipped and runs a long programme of the suites.
#
#   measure.sh bench     prints a table, writes JSON
#   measure.sh soak      hundreds of deploys under load, and every kill
#
# With a container engine when there is one, or one may be started (engine.sh); without when not.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly WHAT=${1:?measure.sh bench | soak}
readonly LIMIT=${MEASURE_LIMIT:-14400} # seconds

if [[ ! -f suites/src/bin/$WHAT.rs && ! -f suites/src/bin/$WHAT/main.rs ]]; then
    echo "make $WHAT: not there yet (suites/src/bin/$WHAT.rs)" >&2
    exit 1
fi

# shellcheck source=scripts/place.sh
source scripts/place.sh
place_make
cargo build --locked --release --bins -p cutover -p cutover-host-bin -p guestbook -p cutover-suites
place_engine || echo "without a container engine: what needs one is left out" >&2
place_run "$LIMIT" "$(target_folder)/release/$WHAT"
