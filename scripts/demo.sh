#!/usr/bin/env bash
# Builds what the demonstration needs and runs it.
#
#   demo.sh processes    plain processes: no container engine, no root
#   demo.sh docker       images, on the engine that answers, or on one of our own where one may be started (engine.sh)
#
# PROFILE=release builds as shipped (slower to build). BUILT=yes builds nothing: the tests have done so.
# Everything lies in a folder of its own below /tmp, which goes at the end, with every process that was started.
# Exit codes: 3 it cannot be shown here, the last line says why · else those of the demonstration.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly KIND=${1:?demo.sh processes | docker}
readonly PROFILE=${PROFILE:-dev}
# Seconds. A demonstration takes about 40; this is for one that hangs.
readonly LIMIT=${DEMO_LIMIT:-300}

# shellcheck source=scripts/place.sh
source scripts/place.sh
place_make

profile_folder() { if [[ $PROFILE == dev ]]; then echo debug; else echo "$PROFILE"; fi; }

if [[ ${BUILT:-no} != yes ]]; then
    command -v cargo >/dev/null || { echo "demo: there is no Rust toolchain here (https://rustup.rs)" >&2; exit 1; }
    cargo build --locked --profile "$PROFILE" --bins -p cutover -p cutover-host-bin -p guestbook -p cutover-suites
fi

if [[ $KIND == docker ]]; then
    place_engine
fi

program="$(target_folder)/$(profile_folder)/demo"
[[ -x $program ]] || { echo "demo: $program is not there" >&2; exit 1; }
place_run "$LIMIT" "$program" "$KIND"
