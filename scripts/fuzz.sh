#!/usr/bin/env bash
# Gives any bytes to what reads bytes of others (fuzz/): the two readers of the session's frames, and the configuration.
#
#   fuzz.sh [SECONDS [TARGET…]]       each for so long, else for 60; all targets where none is named
#
# Needs a nightly compiler and cargo-fuzz: `rustup toolchain install nightly --profile minimal`, `cargo install cargo-fuzz`. What was found
# interesting stays in fuzz/corpus, an input that breaks a target in fuzz/artifacts; the end of its output says how to try it again.
# Exit codes: 0 nothing was found · 3 it cannot be run here · 1 something was found.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly FIXTURES=crates/core/fixtures
# What is tried has no unsafe code: nothing for a sanitizer to find.
readonly HOW=(--sanitizer none)

cargo +nightly fuzz --version >/dev/null 2>&1 || {
    echo "fuzz.sh: a nightly compiler and cargo-fuzz are needed" >&2
    exit 3
}

# A file for each sample, so that each is a beginning.
samples() {
    local from=$1 target=$2 number=0 line
    while read -r line; do
        number=$((number + 1))
        printf '%s\n' "$line" >"fuzz/corpus/$target/sample-$number"
    done <"$from"
    cp "$from" "fuzz/corpus/$target/samples"
}

seeds() {
    local target=$1 file
    mkdir -p "fuzz/corpus/$target"
    case $target in
        host_frames) samples "$FIXTURES/wire/asks.jsonl" "$target" ;;
        client_frames) samples "$FIXTURES/wire/replies.jsonl" "$target" ;;
        configuration)
            for file in "$FIXTURES"/config/*.yml examples/*/cutover.yml; do
                cp "$file" "fuzz/corpus/$target/$(tr / - <<<"$file")"
            done
            ;;
    esac
}

seconds=${1:-60}
shift || true
targets=("$@")
if ((${#targets[@]} == 0)); then mapfile -t targets < <(cargo +nightly fuzz list); fi
for target in "${targets[@]}"; do
    seeds "$target"
    cargo +nightly fuzz run "${HOW[@]}" "$target" -- -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
