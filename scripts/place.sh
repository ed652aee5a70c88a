# shellcheck shell=bash
# A temporary folder for one run of a script, and the end of all that was started in it. To be sourced.
#
# Everything below it is ours: temporary folders of tests (TMPDIR), roots of cutover, the engine of engine.sh. At the end,
# however it ends, processes that run from there or carry its path in their environment are ended, and the folder goes.

PLACE=
PLACE_RUNNING=
PLACE_BESIDE=()

place_make() {
    # Those are of the place from which this one is made.
    PLACE_BESIDE=()
    # Short, since the paths of sockets have to fit into 108 bytes.
    PLACE=$(mktemp -d /tmp/ctXXXXXX)
    mkdir "$PLACE/tmp"
    # As /tmp is: an instance that runs as another user has to come through.
    chmod 0711 "$PLACE"
    chmod 1777 "$PLACE/tmp"
    export TMPDIR="$PLACE/tmp"
    trap place_end EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

# Runs a command with a deadline in seconds, so that a signal to this script ends it too.
place_run() {
    local limit=$1 code=0
    shift
    # With job control, or what runs in the background would ignore SIGINT, and its children with it.
    set -m
    timeout --kill-after=20 "$limit" "$@" </dev/null &
    PLACE_RUNNING=$!
    set +m
    wait "$PLACE_RUNNING" || code=$?
    PLACE_RUNNING=
    return "$code"
}

# Runs a function in the background, in a place of its own: what it leaves running is told from what others have started.
place_beside() {
    (
        place_make
        "$@"
    ) &
    PLACE_BESIDE+=($!)
}

# Waits for all that go beside each other. Returns 1 if one did not come to its end.
place_together() {
    local one code=0
    for one in "${PLACE_BESIDE[@]}"; do wait "$one" || code=1; done
    PLACE_BESIDE=()
    return "$code"
}

# Ends what a run left behind, and says what it was. Returns 1 if there was something.
place_sweep() {
    local left process
    left=$(place_processes)
    if [[ -z $left ]]; then return 0; fi
    echo "left running, now ended:"
    for process in $left; do
        { tr "\0" " " <"/proc/$process/cmdline" | cut -c1-100 | sed "s/^/  $process: /"; } 2>/dev/null || true
    done
    # Keepers and supervisors first, at once: they would start again what ends.
    # shellcheck disable=SC2086 # one word each
    kill -KILL $left 2>/dev/null || true
    local deadline=$((SECONDS + 10))
    while left=$(place_processes) && [[ -n $left ]] && ((SECONDS < deadline)); do
        # shellcheck disable=SC2086
        kill -KILL $left 2>/dev/null || true
        sleep 0.1
    done
    return 1
}

# The processes of this place: they run in its temporary folder, or were given it. The engine's are not among them
# (place_engine), and engine.sh stops those.
place_processes() {
    local found process
    found=$({
        grep -lsF "TMPDIR=$PLACE/tmp" /proc/[0-9]*/environ
        find /proc -maxdepth 2 -name cwd -lname "$PLACE/tmp/*" 2>/dev/null
    } | cut -d/ -f3 | sort -u)
    # What did the looking is gone by now.
    for process in $found; do
        if [[ $process =~ ^[0-9]+$ && $process != "$$" && -d /proc/$process ]]; then echo "$process"; fi
    done
}

# Ends and removes all of it. Can be called twice.
place_clear() {
    local one
    for one in "${PLACE_BESIDE[@]}"; do kill -TERM "$one" 2>/dev/null || true; done
    for one in "${PLACE_BESIDE[@]}"; do wait "$one" 2>/dev/null || true; done
    PLACE_BESIDE=()
    if [[ -n $PLACE_RUNNING ]]; then
        # The children of `timeout` get the signal from it.
        kill -TERM "$PLACE_RUNNING" 2>/dev/null || true
        wait "$PLACE_RUNNING" 2>/dev/null || true
        PLACE_RUNNING=
    fi
    place_sweep >&2 || true
    # Ours, and those of tests that were ended before they could stop theirs.
    local mark
    for mark in "$PLACE"/engine/engine-of-the-tests "$PLACE"/tmp/*/engine-of-the-tests; do
        if [[ -f $mark ]]; then scripts/engine.sh stop "$(dirname "$mark")" || true; fi
    done
    rm -rf --one-file-system "$PLACE"
}

place_end() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    place_clear
    exit "$code"
}

# The engine that answers, or one of this place, in DOCKER_HOST. Its environment does not name our temporary folder, so that
# nothing of it is taken for a remainder of a test. Exit codes as those of engine.sh.
place_engine() {
    local answer
    answer=$(env -u TMPDIR scripts/engine.sh start "$PLACE/engine") || return
    export "${answer?}"
}

target_folder() { echo "${CARGO_TARGET_DIR:-$PWD/target}"; }
