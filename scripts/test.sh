#!/usr/bin/env bash
# Runs every suite that can run here, and ends with a table and the line `N passed, N failed, N skipped`. What is built is built first;
# then go beside each other, each in its own order, the suites without an engine, those with containers on one, and those with servers on
# the same one: they wait for containers most of their time. Those with databases' servers, and a few more, go to whoever has nothing else to do.
#
#   test.sh              all suites
#   test.sh NAME...      those only: fmt clippy deny docs build unit sweep site kill docker docker-kill machines demo demo-docker,
#                        and any other file of suites/tests by its name
#
# What is missing is installed where that may be done (root on Debian or Ubuntu); else the suite is listed as not run, with
# the reason. Exit code 1 when a suite failed. The output of each suite stays in <target>/suites/NAME.log.
#
# Everything is built once, with one selection of packages (`--workspace`): another selection has other features, and would
# build the dependencies again.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly WANTED=" $* "
readonly ORDINARY=1200 # seconds for a suite
readonly NOT_RUN=77    # what a suite returns that did not run; WHY says why

export CARGO_TERM_COLOR=never
# shellcheck source=scripts/place.sh
source scripts/place.sh
place_make

LOGS="$(target_folder)/suites"
readonly LOGS
mkdir -p "$LOGS"
rm -f "$LOGS"/*.{log,row} "$LOGS/summary"
rm -rf "$LOGS"/*.taken

# Those that were asked for, in the order of the table. Each leaves its row in a file: state, then the line.
SUITES=()
WHY=
BUILD=unknown

# ---- the suites ----------------------------------------------------------------------------------------------------

suite_fmt() {
    has_tool fmt rustfmt || return
    place_run 120 cargo fmt --all -- --check --color never
}

suite_clippy() {
    has_tool clippy clippy || return
    place_run "$ORDINARY" cargo clippy --locked --workspace --all-targets -- -D warnings
}

suite_deny() {
    cargo deny --version >/dev/null 2>&1 || { not_run "cargo-deny is not installed"; return; }
    # Offline it wants the sources of every platform's crates.
    place_run 300 cargo fetch --locked || return
    place_run 300 cargo deny --offline --locked check bans licenses sources
}

# What the pages name is there: files in backquotes, and links to other pages.
suite_docs() {
    local page name missing=0
    while read -r page; do
        while read -r name; do
            if [[ ! -e $name && ! -e $(dirname "$page")/$name ]]; then
                echo "$page names $name, which is not there"
                missing=1
            fi
        done < <(
            # shellcheck disable=SC2016 # backquotes of the page
            grep -oE '`(crates|suites|examples|scripts|docs)/[A-Za-z0-9_./-]+`' "$page" | tr -d '`' || true
            grep -oE '\]\([^):#]+\)' "$page" | tr -d ']()' || true
        )
    done < <(find . -maxdepth 1 -name '*.md'; find docs examples -name '*.md')
    return "$missing"
}

suite_build() {
    BUILD=failed
    command -v cc >/dev/null || { BUILD=impossible; not_run "there is no C compiler (SQLite is built from source)"; return; }
    place_run "$ORDINARY" cargo build --locked --workspace --all-targets || return
    BUILD=made
}

# Unit, golden and crates' own tests: all that no other suite runs, so that a new file is not forgotten.
suite_unit() {
    local name words=(--lib --bins)
    for name in $(tests_of_crates); do
        if [[ $name != sweep ]] && ! wants_engine "$name"; then words+=(--test "$name"); fi
    done
    run_tests "${words[@]}" || return
    place_run "$ORDINARY" cargo test --locked --workspace --doc
}

suite_sweep() {
    [[ -f crates/testkit/tests/sweep/main.rs ]] || { not_run "not there yet (crates/testkit/tests/sweep/main.rs)"; return; }
    run_tests --test sweep
}

# A file of suites/tests: real binaries, real processes.
suite_of_file() {
    [[ -f suites/tests/$1.rs || -f suites/tests/$1/main.rs ]] || { not_run "not there yet (suites/tests/$1.rs)"; return; }
    # They look for the shipped programs beside them, which cargo does not build for them.
    if [[ $BUILD == unknown ]]; then suite_build || return; fi
    run_tests --test "$1"
}

suite_docker() {
    local name words=()
    for name in $(tests_of_crates); do
        if wants_engine "$name"; then words+=(--test "$name"); fi
    done
    for name in $(suites_on_engine); do
        if [[ $name != docker_kill && " $(suites_with_databases) " != *" $name "* ]]; then words+=(--test "$name"); fi
    done
    engine || return
    # For images that are fetched; without it those tests say that they did not run.
    command -v docker-registry >/dev/null || install docker-registry
    # They look for the shipped programs beside them, which cargo does not build for them.
    if [[ $BUILD == unknown ]]; then suite_build || return; fi
    # One after another: installations that first plan at the same moment choose the same subnet of the engine they share, and an engine
    # that is started or stopped changes the packet filter under the others.
    RUST_TEST_THREADS=1 run_tests "${words[@]}"
}

# A file of suites/tests with PostgreSQL, MariaDB or Redis in containers, one test after another: they take much of the machine.
suite_with_databases() {
    engine || return
    RUST_TEST_THREADS=1 suite_of_file "$1"
}

# Servers of the tests' own: containers with systemd and sshd on the tests' engine.
suite_machines() {
    local name words=()
    for name in $(suites_on_servers); do words+=(--test "$name"); done
    engine || return
    if [[ $BUILD == unknown ]]; then suite_build || return; fi
    # One after another: what they measure is theirs.
    RUST_TEST_THREADS=1 run_tests "${words[@]}"
}

suite_docker_kill() {
    engine || return
    suite_of_file docker_kill
}

suite_demo() { demo processes; }

suite_demo_docker() {
    local code=0
    engine || return
    demo docker 2>"$PLACE/demo.said" || code=$?
    cat "$PLACE/demo.said"
    if ((code == 3)); then not_run "$(tail -n 1 "$PLACE/demo.said")"; else return "$code"; fi
}

demo() {
    has_demo || { not_run "not there yet (suites/src/bin/demo.rs)"; return; }
    case $BUILD in
        failed) not_run "the build failed" ;;
        impossible) not_run "there is no C compiler" ;;
        unknown) PROFILE=dev place_run "$ORDINARY" scripts/demo.sh "$1" ;;
        made) BUILT=yes PROFILE=dev place_run 400 scripts/demo.sh "$1" ;;
    esac
}

# ---- what they share -----------------------------------------------------------------------------------------------

not_run() {
    WHY=$1
    echo "this suite did not run: $1"
    return "$NOT_RUN"
}

has_tool() {
    if cargo "$1" --version >/dev/null 2>&1; then return 0; fi
    if command -v rustup >/dev/null && place_run 300 rustup component add "$2"; then return 0; fi
    not_run "the toolchain has no $2"
}

has_demo() { [[ -f suites/src/bin/demo.rs || -f suites/src/bin/demo/main.rs ]]; }

run_tests() {
    case $BUILD in
        failed) not_run "the build failed"; return ;;
        impossible) not_run "there is no C compiler"; return ;;
    esac
    place_run "$ORDINARY" cargo test --locked --workspace --no-fail-fast "$@" -- --show-output
}

# Names of the test programmes beside the crates and the example.
tests_of_crates() {
    local file
    for file in crates/*/tests/*.rs examples/*/tests/*.rs; do
        if [[ -f $file ]]; then basename "$file" .rs; fi
    done
    for file in crates/*/tests/*/main.rs examples/*/tests/*/main.rs; do
        if [[ -f $file ]]; then basename "$(dirname "$file")"; fi
    done
}

# Whether a test programme talks with a container engine: it says `on_engine`.
wants_engine() {
    grep -qs on_engine crates/*/tests/"$1".rs crates/*/tests/"$1"/*.rs
}

# Files and folders of suites/tests that have this.
suites_that_have() {
    local file
    for file in suites/tests/*.rs suites/tests/*/main.rs; do
        if grep -qsE "$1" "$file" || { [[ $file == */main.rs ]] && grep -qsrE "$1" "${file%/main.rs}"; }; then
            basename "${file%/main.rs}" .rs
        fi
    done
}

# Those that talk with an engine.
suites_on_engine() { suites_that_have on_engine; }

# Those with databases' servers in containers, as one line.
suites_with_databases() { suites_that_have '(databases|mariadb)_image' | tr '\n' ' '; }

# Those whose tests have servers of their own.
suites_on_servers() { suites_that_have on_server; }

engine() {
    local code=0
    place_engine 2>"$PLACE/engine.said" || code=$?
    cat "$PLACE/engine.said"
    if ((code == 3)); then
        not_run "$(tail -n 1 "$PLACE/engine.said" | sed 's/^engine.sh: //')"
    else
        return "$code"
    fi
}

# ---- running them --------------------------------------------------------------------------------------------------

# Installs what is missing for all of them, where it may.
prepare() {
    local missing=() command
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    for command in git python3; do
        command -v "$command" >/dev/null || missing+=("$command")
    done
    # For servers on loopback; without them those tests say that they did not run.
    command -v sshd >/dev/null || [[ -x /usr/sbin/sshd ]] || missing+=(openssh-server openssh-client)
    # Reads what backups wrote.
    command -v restic >/dev/null || missing+=(restic)
    # Ask and dump a server that is none of an app's own.
    command -v pg_dump >/dev/null || missing+=(postgresql-client)
    if ((${#missing[@]} == 0)); then return; fi
    install "${missing[@]}"
}

# Installs packages, where that may be done; what needs them says that it did not run.
install() {
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "missing, and not installed by this script (needs root on Debian or Ubuntu): $*"
        return
    fi
    echo "installing $*"
    local options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=300)
    DEBIAN_FRONTEND=noninteractive apt-get update -q >>"$LOGS/packages.log" 2>&1 &&
        DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "$@" >>"$LOGS/packages.log" 2>&1 ||
        echo "they could not be installed: see $LOGS/packages.log"
}

# run_suite NAME FUNCTION [WORD…]
run_suite() {
    local name=$1 log="$LOGS/$1.log" begin=$SECONDS code=0
    is_wanted "$name" || return 0
    shift
    WHY=
    echo "── $name"
    "$@" >"$log" 2>&1 || code=$?
    # A test that leaves something running has failed, whatever it says.
    place_sweep >>"$log" 2>&1 || if ((code == 0)); then code=90; fi
    tell "$name" "$code" "$((SECONDS - begin))" "$log"
}

is_wanted() { [[ $WANTED == "  " || $WANTED == *" $1 "* ]]; }

tell() {
    local name=$1 code=$2 seconds=$3 log=$4 state note shown=
    note=$(counts "$log")
    if ((code == NOT_RUN)); then
        state='not run'
        note=$WHY
    elif ((code == 0)) && all_not_run "$log"; then
        state='not run'
        note="no test of it could run: $(not_run_tests "$log" | head -n 1)"
    elif ((code == 0)); then
        state=passed
    else
        state=failed
        note="$(reason "$code")${note:+, $note}"
        shown=$(show_failure "$log") || true
    fi
    printf '%s\n%-12s  %-8s  %5ss  %s\n' "$state" "$name" "$state" "$seconds" "$note" >"$LOGS/$name.row"
    # At once: another suite speaks beside this one.
    echo "${shown:+$shown$'\n'}   $name: $state (${seconds}s) $note"
}

reason() {
    case $1 in
        124 | 137) echo "did not end in time" ;;
        90) echo "left processes running" ;;
        *) echo "exit code $1" ;;
    esac
}

# "12 tests", "11 tests, 1 failed, 2 not run", or nothing where there are none.
counts() {
    awk -v not_run="$(not_run_tests "$1" | wc -l)" '
        /^test result:/ { for (i = 1; i < NF; i++) { if ($(i + 1) ~ /^passed/) p += $i; if ($(i + 1) ~ /^failed/) f += $i } }
        END {
            if (p + f == 0) exit
            text = p + f - not_run " tests"
            if (f) text = text ", " f " failed"
            if (not_run) text = text ", " not_run " not run"
            print text
        }' "$1"
}

# Tests say so in a line of their own: `not run: NAME: WHY`.
not_run_tests() { sed -n 's/^not run: //p' "$1" | sort -u; }

all_not_run() {
    local not_run
    not_run=$(not_run_tests "$1" | wc -l)
    ((not_run > 0)) && [[ $(counts "$1") == "0 tests, "* ]]
}

# What the failed tests said; where no test did, the end of the suite's output.
show_failure() {
    echo "   from $1:"
    if grep -qs '^failures:' "$1"; then
        # Without the frames of backtraces: the log has them, and here they are in the way of what was said.
        awk '/^failures:/ { on = 1 } /^ +([0-9]+: |at )/ { next } on { print } /^test result:/ { on = 0 }' "$1" | head -n 400
        tail -n 3 "$1"
    else
        tail -n 100 "$1"
    fi | sed 's/^/   | /'
}

table() {
    local name row log line passed=0 failed=0 skipped=0
    echo
    printf '%-12s  %-8s  %6s  %s\n' suite result time told
    for name in "${SUITES[@]}"; do
        row="$LOGS/$name.row"
        # Its own file is the last thing that a suite writes.
        if [[ ! -f $row ]]; then printf 'failed\n%-12s  failed       -  it never came to its end\n' "$name" >"$row"; fi
        case $(head -n 1 "$row") in
            passed) passed=$((passed + 1)) ;;
            failed) failed=$((failed + 1)) ;;
            *) skipped=$((skipped + 1)) ;;
        esac
        tail -n 1 "$row"
    done
    for log in "$LOGS"/*.log; do
        while read -r line; do
            echo "not run in $(basename "$log" .log): $line"
        done < <(not_run_tests "$log" | head -n 10)
    done
    echo
    echo "$passed passed, $failed failed, $skipped skipped" | tee "$LOGS/summary"
    ((failed == 0))
}

# ---- their order ---------------------------------------------------------------------------------------------------

built() {
    run_suite fmt suite_fmt
    run_suite clippy suite_clippy
    run_suite deny suite_deny
    run_suite docs suite_docs
    run_suite build suite_build
}

with_containers() {
    run_suite docker suite_docker
    rest
}

with_servers() {
    run_suite machines suite_machines
    # Not beside those: it takes the machine from what they measure.
    run_suite docker-kill suite_docker_kill
    rest
}

# They are not told of the engine; those that are left in the end are.
without_engine() {
    local name host=${DOCKER_HOST-}
    unset DOCKER_HOST
    run_suite unit suite_unit
    run_suite sweep suite_sweep
    for name in site kill $(other_suites); do run_suite "$name" suite_of_file "$name"; done
    run_suite demo suite_demo
    if [[ -n $host ]]; then export DOCKER_HOST=$host; fi
    rest
}

# What is left goes to whoever has nothing else to do, so that all end together: the longest first, each once.
rest() {
    local name
    for name in postgres $(suites_with_databases) demo-docker; do
        mkdir "$LOGS/$name.taken" 2>/dev/null || continue
        case $name in
            demo-docker) run_suite "$name" suite_demo_docker ;;
            *) run_suite "$name" suite_with_databases "$name" ;;
        esac
    done
}

# What of suites/tests has no function of its own here, nor is part of a suite.
other_suites() {
    local file name
    for file in suites/tests/*.rs suites/tests/*/main.rs; do
        name=$(basename "${file%/main.rs}" .rs)
        case " site kill $(suites_on_engine | tr '\n' ' ') $(suites_on_servers | tr '\n' ' ')" in
            *" $name "*) ;;
            *) echo "$name" ;;
        esac
    done
}

for name in fmt clippy deny docs build unit sweep site kill $(other_suites) docker docker-kill machines demo demo-docker \
    $(suites_with_databases); do
    if is_wanted "$name"; then SUITES+=("$name"); fi
done
prepare
built
# One for all, or none: each suite then says why it did not run.
for name in docker docker-kill machines demo-docker $(suites_with_databases); do
    if is_wanted "$name"; then
        engine >/dev/null || true
        break
    fi
done
place_beside without_engine
place_beside with_containers
place_beside with_servers
# Which of them did not come to its end is told by the table.
place_together || true
# First, so that the table is the last word.
place_clear
table
