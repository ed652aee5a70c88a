#!/usr/bin/env bash
# A container engine for the tests: the one that answers, else one of our own that leaves nothing behind.
#
#   engine.sh start FOLDER            prints DOCKER_HOST=unix://… of the engine that answers (DOCKER_HOST, then the usual
#                                     socket, then the one in FOLDER); where none does and it may (root on Debian or
#                                     Ubuntu), installs the distribution's and starts it with everything in FOLDER
#   engine.sh own FOLDER              the same, but always starts one in FOLDER, beside those that answer
#   engine.sh apart FOLDER            the same in a network of its own: it reaches nobody, and its loopback is not this machine's
#   engine.sh stop FOLDER             stops the engine in FOLDER, and no other, and removes all it made
#   engine.sh restart FOLDER          stops it in order, and starts it again with what it has
#   engine.sh kill FOLDER             as a loss of power: the engine and all its containers end at once; what lies on the disk stays
#   engine.sh again FOLDER            starts it again with what lies there, as after a reboot
#   engine.sh base                    makes the image cutover-test/busybox:1 from the machine's static busybox
#   engine.sh databases               makes the image cutover-test/databases:1, with PostgreSQL and Redis of the distribution
#   engine.sh mariadb                 makes the image cutover-test/mariadb:1, with MariaDB of the distribution
#   engine.sh tools                   makes the image cutover-test/tools:1, with PostgreSQL, alembic and Django of the distribution
#   engine.sh golang-migrate          makes the image cutover-test/golang-migrate:1, which has golang-migrate's own command besides
#   engine.sh sqlx                    makes the image cutover-test/sqlx:1, which has suites/tools/sqlx besides
#
# Only results go to stdout, talk goes to stderr. Exit codes: 0 done · 3 there is no engine and there can be none here,
# the last line says why · 1 anything else.

set -euo pipefail
SCRIPTS=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
readonly SCRIPTS
# shellcheck source=scripts/packages.sh
source "$SCRIPTS/packages.sh"

readonly WAIT_FOR_SOCKET=60 # seconds
readonly WAIT_FOR_END=30    # seconds
readonly MARK=engine-of-the-tests
readonly APART=apart
readonly LOCK=/run/lock/cutover-test-engine
# Where an engine of ours made the chains of the packet filter: what came before them.
readonly POLICY=$LOCK.forward-policy
readonly USUAL=/var/run/docker.sock

say() { printf 'engine.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
cannot() { say "no container engine: $*"; exit 3; }

# Whether an engine answers at the address. Needs a client: docker's own, or curl.
answers() {
    local address=$1
    if [[ $address == unix://* && ! -S ${address#unix://} ]]; then return 1; fi
    if command -v docker >/dev/null; then
        timeout 10 docker -H "$address" version --format '{{.Server.Version}}' >/dev/null 2>&1
    elif command -v curl >/dev/null && [[ $address == unix://* ]]; then
        curl -fsS -m 10 --unix-socket "${address#unix://}" http://engine/_ping >/dev/null 2>&1
    else
        return 1
    fi
}

# ---- start ---------------------------------------------------------------------------------------------------------

start() {
    local folder=${1:?start needs a folder}
    local address
    for address in "${DOCKER_HOST:-}" "unix://$USUAL" "unix://$folder/sock"; do
        if [[ -n $address ]] && answers "$address"; then
            say "using the engine at $address"
            echo "DOCKER_HOST=$address"
            return
        fi
    done
    own "$folder"
}

own() {
    local folder=${1:?own needs a folder}
    may_start "$folder"
    one_at_a_time
    install_engine
    clear_remains "$folder"
    launch "$folder"
}

apart() {
    local folder=${1:?apart needs a folder} name
    may_start "$folder"
    one_at_a_time
    install_engine
    command -v unshare >/dev/null || cannot "there is no unshare (util-linux)"
    clear_remains "$folder"
    name=$(make_folder "$folder")
    # No bridge: there is nobody to be reached by it.
    options_of "$folder" "$name" none >"$folder/options"
    printf '%s\n' --iptables=false --ip6tables=false >>"$folder/options"
    touch "$folder/$APART"
    begin "$folder"
}

# Packages, free subnets and the packet filter are the whole machine's.
one_at_a_time() {
    mkdir -p "$(dirname "$LOCK")"
    exec 9>"$LOCK"
    flock -w 600 9 || fail "another start on this machine does not end"
}

may_start() {
    local folder=$1
    [[ $(uname -s) == Linux ]] || cannot "none answers, and only on Linux one can be started here"
    [[ $(id -u) == 0 ]] || cannot "none answers, and starting one needs root"
    [[ $folder == /* ]] || fail "the folder has to be an absolute path: $folder"
    # The sockets below it must fit into 108 bytes.
    ((${#folder} <= 60)) || fail "the folder's path is longer than 60 characters: $folder"
}

install_engine() {
    if command -v dockerd >/dev/null && command -v docker >/dev/null && command -v iptables >/dev/null; then return; fi
    command -v apt-get >/dev/null || cannot "none answers, and packages are installed on Debian and Ubuntu only"
    say "installing the distribution's docker.io"
    local packages=(docker.io iptables iproute2)
    # Newer releases have the client in a package of its own.
    if apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
    apt_install "${packages[@]}" || cannot "docker.io could not be installed"
    command -v dockerd >/dev/null || cannot "docker.io brought no dockerd"
}

launch() {
    local folder=$1 bridge address
    bridge=$(make_folder "$folder")
    # A bridge of its own: two engines on one machine would take docker0 from each other.
    address=$(free_address) || cannot "no free subnet for its bridge"
    ip link add name "$bridge" type bridge || cannot "no bridge can be made here (CAP_NET_ADMIN, kernel module)"
    ip address add "$address" dev "$bridge"
    ip link set "$bridge" up
    options_of "$folder" "$bridge" "$bridge" >"$folder/options"
    if another_engine_runs; then
        # Each start of an engine flushes the packet filter's chains, the other one's rules with them.
        say "another engine runs on this machine: ours leaves the packet filter alone (no way out for its containers)"
        printf '%s\n' --iptables=false --ip6tables=false >>"$folder/options"
        # The other one's rules drop what is bridged between our containers, unless told otherwise. Taken back at the end.
        bridged_rule -I "$bridge" || say "containers of one network may not reach each other"
    elif ! iptables -w -t nat -nL DOCKER >/dev/null 2>&1; then
        # Else they are of an engine that does not run now, and are kept at the end.
        iptables -w -S FORWARD | sed -n 's/^-P FORWARD //p' >"$folder/forward-policy"
    fi
    begin "$folder"
}

# A folder that is known as one of ours; prints the name that is the engine's own.
make_folder() {
    local folder=$1 name
    name=$(basename "$(mktemp -u ctXXXXXX)")
    mkdir -p "$folder/data" "$folder/exec"
    chmod 0711 "$folder"
    printf '%s\n' "$name" | tee "$folder/$MARK"
}

# What it is started with, a line each.
options_of() {
    local folder=$1 name=$2 bridge=$3
    # Beside a containerd of the system's, or another engine's, nothing is mixed up.
    printf '%s\n' \
        --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" \
        --host "unix://$folder/sock" --group root --bridge "$bridge" \
        --containerd-namespace "$name" --containerd-plugins-namespace "$name-plugins"
}

begin() {
    local folder=$1
    say "starting $(dockerd --version) in $folder"
    if ! run_engine "$folder"; then
        stop "$folder"
        cannot "dockerd did not come up within ${WAIT_FOR_SOCKET}s"
    fi
    say "storage driver: $(docker -H "unix://$folder/sock" info --format '{{.Driver}}' 2>/dev/null)"
    echo "DOCKER_HOST=unix://$folder/sock"
}

# Runs the engine by the options in its folder, until it answers.
run_engine() {
    local folder=$1 options log="$1/log" within=()
    mapfile -t options <"$folder/options"
    if [[ -f $folder/$APART ]]; then within=(unshare --net); fi
    setsid "${within[@]}" dockerd "${options[@]}" >>"$log" 2>&1 </dev/null 9>&- &
    if ! wait_for_socket "$folder" $!; then
        say "the last lines of $log:"
        tail -n 15 "$log" >&2 || true
        return 1
    fi
}

wait_for_socket() {
    local folder=$1 engine=$2 deadline=$((SECONDS + WAIT_FOR_SOCKET))
    while ((SECONDS < deadline)); do
        if answers "unix://$folder/sock"; then return 0; fi
        if [[ ! -d /proc/$engine ]]; then return 1; fi
        sleep 0.1
    done
    return 1
}

# One in another network, of a test's server for instance, has a packet filter of its own.
another_engine_runs() {
    local entry name
    for entry in /proc/[0-9]*; do
        name=$(cat "$entry/comm" 2>/dev/null) || continue
        if [[ $name != dockerd || ! $entry/ns/net -ef /proc/self/ns/net ]]; then continue; fi
        if ! ended "${entry#/proc/}"; then return 0; fi
    done
    return 1
}

# An address of the host's on a subnet that no interface and no route here knows.
free_address() {
    local number
    for number in $(seq 255 -1 200); do
        if ! ip -4 route show | grep -q "^172\.31\.$number\." && ! ip -4 address show | grep -q " 172\.31\.$number\."; then
            echo "172.31.$number.1/24"
            return
        fi
    done
    return 1
}

# ---- again ---------------------------------------------------------------------------------------------------------

restart() {
    local folder=${1:?restart needs a folder}
    must_be_ours "$folder"
    end_process "$(engine_process "$folder")" dockerd
    again "$folder"
}

again() {
    local folder=${1:?again needs a folder}
    must_be_ours "$folder"
    one_at_a_time
    run_engine "$folder" || fail "dockerd did not come up again within ${WAIT_FOR_SOCKET}s"
    echo "DOCKER_HOST=unix://$folder/sock"
}

# Nothing has time to put anything in order. What a machine has in memory only is cleared as a reboot clears it.
kill_engine() {
    local folder=${1:?kill needs a folder} process
    must_be_ours "$folder"
    process=$(engine_process "$folder")
    if [[ -n $process ]]; then kill -KILL "$process" 2>/dev/null || true; fi
    for process in $(helpers "$folder"); do kill -KILL "$process" 2>/dev/null || true; done
    end_containers "$folder"
    for process in $(helpers "$folder"); do end_process "$process" "a helper of the engine"; done
    unmount_below "$folder"
    remove_networks "$folder"
    rm -rf --one-file-system "$folder/exec" "$folder/sock" "$folder/pid"
    mkdir "$folder/exec"
}

must_be_ours() { [[ -f $1/$MARK && -f $1/options ]] || fail "there is no engine of ours in $1"; }

# ---- stop ----------------------------------------------------------------------------------------------------------

stop() {
    local folder=${1:?stop needs a folder}
    if [[ ! -f $folder/$MARK ]]; then
        say "no engine of ours in $folder"
        return
    fi
    empty_engine "$folder"
    end_process "$(engine_process "$folder")" dockerd
    clear_remains "$folder"
    say "stopped the engine in $folder"
}

# The process of the engine in the folder, if it is that one: process ids come again.
engine_process() {
    local folder=$1 process
    process=$(cat "$folder/pid" 2>/dev/null) || return 0
    if [[ $process =~ ^[0-9]+$ ]] && arguments "$process" | grep -qF -- "$folder/data"; then
        echo "$process"
    fi
}

# Containers and networks go through the engine while it lives: it takes its bridges and rules with it.
empty_engine() {
    local address="unix://$1/sock" containers networks
    if ! answers "$address"; then return; fi
    containers=$(timeout 20 docker -H "$address" ps -aq 2>/dev/null || true)
    # shellcheck disable=SC2086 # one word each
    if [[ -n $containers ]]; then timeout 60 docker -H "$address" rm -fv $containers >/dev/null 2>&1 || true; fi
    networks=$(timeout 20 docker -H "$address" network ls -q --filter type=custom 2>/dev/null || true)
    # shellcheck disable=SC2086
    if [[ -n $networks ]]; then timeout 60 docker -H "$address" network rm $networks >/dev/null 2>&1 || true; fi
}

arguments() { { tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null || true; }

end_process() {
    local process=$1 name=$2 deadline=$((SECONDS + WAIT_FOR_END))
    if [[ -z $process ]]; then return; fi
    kill -TERM "$process" 2>/dev/null || return 0
    while [[ -d /proc/$process ]] && ! ended "$process"; do
        if ((SECONDS >= deadline)); then
            say "$name ($process) did not end by itself: killed"
            kill -KILL "$process" 2>/dev/null || true
            return
        fi
        sleep 0.1
    done
}

# A process nobody waited for yet is still listed.
ended() { [[ $(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) == [ZX] ]]; }

# What an engine leaves, above all one that was killed: its containerd, its containers, mounts, bridges, rules, folder.
clear_remains() {
    local folder=$1 process
    [[ -f $folder/$MARK ]] || return 0
    end_containers "$folder"
    for process in $(helpers "$folder"); do end_process "$process" "a helper of the engine"; done
    unmount_below "$folder"
    remove_networks "$folder"
    ip link delete "$(cat "$folder/$MARK")" 2>/dev/null || true
    while bridged_rule -D "$(cat "$folder/$MARK")"; do :; done
    remove_rules "$folder"
    # Whoever ends last takes the chains away, too.
    if [[ -f $folder/forward-policy ]]; then mv "$folder/forward-policy" "$POLICY"; fi
    if [[ -f $POLICY ]] && ! another_engine_runs; then
        remove_chains "$(cat "$POLICY")"
        rm "$POLICY"
    fi
    rm -rf --one-file-system "$folder"
}

# Its containerd, the shims of its containers, its forwarders of ports.
helpers() {
    local folder=$1 entry process
    for entry in /proc/[0-9]*; do
        process=${entry#/proc/}
        if [[ $process == "$$" || $process == "$PPID" || $process == "$BASHPID" ]]; then continue; fi
        case $(arguments "$process") in
            *containerd*"$folder/exec"* | *docker-proxy*"$folder"*) if ! ended "$process"; then echo "$process"; fi ;;
        esac
    done
}

unmount_below() {
    local folder=$1 mount
    # Deepest first.
    while read -r mount; do
        umount -l "$mount" 2>/dev/null || say "could not unmount $mount"
    done < <(awk -v under="$folder/" 'index($5, under) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
}

remove_networks() {
    local bridge
    while read -r bridge; do
        if [[ -n $bridge && -d /sys/class/net/$bridge/bridge ]]; then ip link delete "$bridge" || true; fi
    done < <(networks_of "$1")
}

# The processes of containers outlive an engine and a containerd that were killed; their control groups tell whose they
# are.
end_containers() {
    local folder=$1 container entry group
    for container in "$folder"/data/containers/*/; do
        container=$(basename "$container")
        if [[ ! $container =~ ^[0-9a-f]{64}$ ]]; then continue; fi
        for entry in /proc/[0-9]*; do
            if grep -qF "$container" "$entry/cgroup" 2>/dev/null; then kill -KILL "${entry#/proc/}" 2>/dev/null || true; fi
        done
        while read -r group; do
            rmdir "$group" 2>/dev/null || true
        done < <(find /sys/fs/cgroup -depth -type d -path "*$container*" 2>/dev/null)
    done
}

# Lets pass what stays on one bridge; the comment tells whose rule it is.
bridged_rule() {
    iptables -w "$1" FORWARD -m physdev --physdev-is-bridged -m comment --comment "$2" -j ACCEPT 2>/dev/null
}

# Networks of an engine that was killed stand in its own book only.
networks_of() {
    grep -aoE 'br-[0-9a-f]{12}' "$1/data/network/files/local-kv.db" 2>/dev/null | sort -u || true
}

# What of the packet filter names a bridge of this engine, in whosever chain. Another engine that runs keeps its chains and its own rules.
remove_rules() {
    local folder=$1 bridges table rule
    bridges=$({ cat "$folder/$MARK"; networks_of "$folder"; } | paste -s -d '|')
    for table in nat filter; do
        while read -r rule; do
            # shellcheck disable=SC2086 # a rule is several words
            iptables -w -t "$table" ${rule/#-A/-D} 2>/dev/null || true
        done < <(iptables -w -t "$table" -S 2>/dev/null | grep -E -- "^-A .* -[io] ($bridges) " || true)
    done
}

# The packet filter's chains of an engine; only where there were none before ours.
remove_chains() {
    local policy=$1 table chain rule
    for table in nat filter; do
        # Jumps first, then the chains they lead to.
        while read -r rule; do
            # shellcheck disable=SC2086 # a rule is several words
            iptables -w -t "$table" ${rule/#-A/-D} 2>/dev/null || true
        done < <(iptables -w -t "$table" -S 2>/dev/null | grep -E -- "^-A .*( -j DOCKER| -[io] br-[0-9a-f]{12} )" || true)
        for chain in $(chains_in "$table"); do iptables -w -t "$table" -F "$chain" 2>/dev/null || true; done
        for chain in $(chains_in "$table"); do iptables -w -t "$table" -X "$chain" 2>/dev/null || true; done
    done
    if [[ -n $policy ]]; then iptables -w -P FORWARD "$policy" 2>/dev/null || true; fi
}

chains_in() { iptables -w -t "$1" -S 2>/dev/null | awk '/^-N DOCKER/ { print $2 }'; }

# ---- base images ---------------------------------------------------------------------------------------------------

image_is_there() {
    docker image inspect "$1" >/dev/null 2>&1 || return 1
    echo "$1"
}

base() {
    local image=cutover-test/busybox:1 root
    image_is_there "$image" && return
    if [[ ! -x /bin/busybox ]]; then
        if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then cannot "there is no static busybox at /bin/busybox"; fi
        apt_install busybox-static || cannot "busybox-static could not be installed"
    fi
    root=$(mktemp -d)
    # shellcheck disable=SC2064 # this very folder
    trap "rm -rf '$root'" EXIT
    mkdir -p "$root/bin" "$root/etc" "$root/tmp"
    chmod 1777 "$root/tmp"
    cp -L /bin/busybox "$root/bin/busybox"
    /bin/busybox --list | while read -r tool; do
        if [[ $tool != busybox ]]; then ln -s busybox "$root/bin/$tool"; fi
    done
    tar -C "$root" --owner=0 --group=0 -c . | docker import -c 'CMD ["/bin/sh"]' - "$image" >/dev/null
    echo "$image"
}

databases() {
    packages cutover-test/databases:1 "PostgreSQL and Redis" postgres postgresql,redis-server link_postgres
}

# In the place of the wrappers that choose among several versions.
link_postgres() {
    local program
    for program in "$1"/usr/lib/postgresql/*/bin/*; do ln -sf "${program#"$1"}" "$1/usr/bin/"; done
}

mariadb() {
    packages cutover-test/mariadb:1 MariaDB mysql mariadb-server strip_mariadb
}

# What looks after broken files, and what other servers of a cluster are told.
strip_mariadb() {
    rm -f "$1"/usr/bin/aria_* "$1"/usr/bin/myisam* "$1"/usr/bin/mariadb-{binlog,slap,check,show,import} \
        "$1"/usr/bin/{garb*,innochecksum,resolve_stack_dump,sst_dump,mariadb-backup,mbstream} "$1"/usr/lib/libgalera*
}

tools() {
    packages cutover-test/tools:1 "migration tools" postgres postgresql,alembic,python3-psycopg2,python3-django link_postgres
}

# The last release that Go 1.19 builds, which is Debian 12's.
golang_migrate() {
    local built
    image_is_there cutover-test/golang-migrate:1 && return
    command -v go >/dev/null || apt_install golang-go || cannot "golang-go could not be installed"
    built=$(built_in_folder)
    say "building golang-migrate"
    CGO_ENABLED=0 GOTOOLCHAIN=local GOBIN=$built go install -trimpath -tags postgres \
        github.com/golang-migrate/migrate/v4/cmd/migrate@v4.16.2 >&2 || cannot "golang-migrate could not be built"
    with_program "$built/migrate" cutover-test/golang-migrate:1
}

sqlx() {
    local built
    image_is_there cutover-test/sqlx:1 && return
    built=$(built_in_folder)
    say "building a program with sqlx"
    cargo build --locked --manifest-path "$SCRIPTS/../suites/tools/sqlx/Cargo.toml" --target-dir "$built" >&2 ||
        cannot "suites/tools/sqlx could not be built"
    with_program "$built/debug/ledger-migrate" cutover-test/sqlx:1
}

# Kept among what was built, for the next engine.
built_in_folder() {
    local folder=${CARGO_TARGET_DIR:-$SCRIPTS/../target}/tools
    mkdir -p "$folder"
    (cd "$folder" && pwd)
}

# The image with the tools, and a program in it.
with_program() {
    local program=$1 image=$2 folder
    # By itself: it ends with a trap of its own.
    (tools >/dev/null)
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # this very folder
    trap "rm -rf '$folder'" EXIT
    cp "$program" "$folder/"
    printf 'FROM cutover-test/tools:1\nCOPY %s /usr/bin/\n' "$(basename "$program")" >"$folder/Dockerfile"
    docker build --quiet --tag "$image" "$folder" >&2
    echo "$image"
}

# The programs of the distribution's packages, taken from them as they are: none is set up. `then` is told where they lie.
packages() {
    local image=$1 what=$2 user=$3 names=$4 then=$5 root suite program
    image_is_there "$image" && return
    # shellcheck disable=SC1091 # the system's own
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [[ -n $suite ]] || cannot "this system does not say which Debian or Ubuntu it is"
    [[ $(id -u) == 0 ]] || cannot "an image of packages is made as root only"
    command -v mmdebstrap >/dev/null || apt_install mmdebstrap || cannot "mmdebstrap could not be installed"
    root=$(mktemp -d)
    # shellcheck disable=SC2064 # this very folder
    trap "rm -rf '$root'" EXIT
    say "making an image of $what"
    # shellcheck disable=SC2046 # none or one
    mmdebstrap --quiet --variant=extract --include="$names,busybox-static,gosu,dash" \
        --format=directory "$suite" "$root" $(mirror_of_this_machine) >&2 || cannot "mmdebstrap failed"
    "$then" "$root"
    # A shell's tools, where no package has them.
    "$root/bin/busybox" --list | while read -r program; do
        if [[ ! -e $root/bin/$program && ! -L $root/usr/bin/$program ]]; then ln -sf busybox "$root/bin/$program"; fi
    done
    printf 'root:x:0:0::/:/bin/sh\n%s:x:70:70::/:/bin/sh\n' "$user" >"$root/etc/passwd"
    printf 'root:x:0:\n%s:x:70:\n' "$user" >"$root/etc/group"
    chmod 1777 "$root/tmp"
    # What they need only for compiling queries, and pages that nobody reads.
    tar -C "$root" --exclude='./dev/*' --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' \
        --exclude='./usr/share/perl*' --exclude='libLLVM*' --exclude='libz3*' --exclude='./usr/lib/*/perl*' --exclude='*/bitcode' -c . |
        docker import -c 'CMD ["/bin/sh"]' - "$image" >/dev/null
    echo "$image"
}

case ${1:-} in
    start) start "${2:-}" ;;
    own) own "${2:-}" ;;
    apart) apart "${2:-}" ;;
    restart) restart "${2:-}" ;;
    kill) kill_engine "${2:-}" ;;
    again) again "${2:-}" ;;
    stop) stop "${2:-}" ;;
    base) base ;;
    databases) databases ;;
    mariadb) mariadb ;;
    tools) tools ;;
    golang-migrate) golang_migrate ;;
    sqlx) sqlx ;;
    *) fail "usage: engine.sh start | own | apart | stop | restart | kill | again FOLDER, or base | databases | mariadb | tools | golang-migrate | sqlx" ;;
esac
