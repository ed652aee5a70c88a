#!/usr/bin/env bash
# Images of servers for the tests, on the engine in DOCKER_HOST: made from packages of the distributions, none is pulled.
#
#   machines.sh image NAME            prints the image's name; makes it where the engine has none yet
#   machines.sh cgroups               what systemd in a container needs on this machine; once, before the first
#
#   bare-12 bare-13                   Debian 12 and 13 as a provider hands them over: systemd, sshd, sudo
#   bare-22.04 bare-24.04             Ubuntu, the same
#   engine-20.10 engine-26.1          the same with the distribution's engine: of Debian 12, of Debian 13,
#   engine-29.1                       of Ubuntu 24.04
#   stocked-12                        bare-12 with the packages that setup installs in apt's own store: not installed, and had
#                                     without a network
#
# In each there are `admin`, who may do all by sudo, and `guest`, who may not. Who gets in by ssh is told when a machine is
# made (crates/testkit/src/machine).
#
# Ubuntu on a machine that is not: UBUNTU_MIRROR names a mirror of its packages.
#
# Only results go to stdout, talk goes to stderr. Exit codes: 0 done · 3 it cannot be made here, the last line says why · 1
# anything else.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/packages.sh
source packages.sh

# What every server of a provider has. A list of the packages' own: nothing that cutover needs is among them.
readonly BARE=apt,systemd-sysv,dbus,openssh-server,sudo,iproute2,ca-certificates
readonly LOCK=/run/lock/cutover-test-machines
# Nobody reads them.
readonly LEFT_OUT=(
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*'
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*'
)
# What wants hardware, or the kernel to itself.
readonly MASKED=(
    systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-modules-load.service
    systemd-logind.service sys-kernel-debug.mount sys-kernel-tracing.mount dev-hugepages.mount dev-mqueue.mount
    getty.target console-getty.service
)

say() { printf 'machines.sh: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
cannot() { say "no servers for the tests: $*"; exit 3; }

image() {
    local name=${1:?image needs a name} tag="cutover-test/machine:${1}"
    if there "$tag"; then echo "$tag"; return; fi
    one_at_a_time "$name"
    # Made by another one meanwhile.
    if there "$tag"; then echo "$tag"; return; fi
    local began=$SECONDS
    case $name in
        bare-12) bare bookworm "$tag" ;;
        bare-13) bare trixie "$tag" ;;
        bare-22.04) bare jammy "$tag" ;;
        bare-24.04) bare noble "$tag" ;;
        engine-20.10) engine bare-12 "$tag" ;;
        engine-26.1) engine bare-13 "$tag" ;;
        engine-29.1) engine bare-24.04 "$tag" ;;
        stocked-12) stocked bare-12 "$tag" ;;
        *) fail "there is no machine $name" ;;
    esac
    say "made $tag in $((SECONDS - began))s"
    echo "$tag"
}

there() { docker image inspect "$1" >/dev/null 2>&1; }

one_at_a_time() {
    mkdir -p "$(dirname "$LOCK")"
    exec 9>"$LOCK-$1"
    flock -w 600 9 || fail "another one that makes $1 does not end"
}

# ---- bare ----------------------------------------------------------------------------------------------------------

bare() {
    local suite=$1 tag=$2 folder from
    [[ $(id -u) == 0 ]] || cannot "an image of packages is made as root only"
    command -v mmdebstrap >/dev/null || apt_install mmdebstrap || cannot "mmdebstrap could not be installed"
    folder=$(mktemp -d)
    # shellcheck disable=SC2064 # this very folder
    trap "rm -rf '$folder'" EXIT
    say "making $tag from packages of $suite"
    mapfile -t from < <(sources "$suite")
    # shellcheck disable=SC2016 # mmdebstrap's own
    # What is said of Ubuntu's key holds on this machine alone. The lists stay, as on a server that was installed a day ago.
    mmdebstrap --quiet --variant=minbase --include="$BARE" --skip=cleanup/apt/lists "${LEFT_OUT[@]}" \
        --customize-hook='sed -i "s/ \[signed-by=[^]]*\]//" "$1/etc/apt/sources.list"' \
        --format=tar "$suite" "$folder/root.tar" "${from[@]}" >&2 || cannot "mmdebstrap failed for $suite"
    docker import "$folder/root.tar" "$tag-packages" >/dev/null
    cp machines/init.sh "$folder/"
    # An engine's stores cannot lie on what this engine makes a container's files of.
    printf '%s\n' \
        "FROM $tag-packages" \
        "COPY init.sh /usr/local/sbin/machine-init" \
        "RUN systemctl mask ${MASKED[*]} && systemctl enable ssh && rm -f /etc/ssh/ssh_host_* && chmod 0755 /usr/local/sbin/machine-init" \
        "RUN useradd -m -s /bin/bash admin && useradd -m -s /bin/bash guest && echo 'admin ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/admin" \
        "VOLUME /var/lib/docker /var/lib/containerd" \
        "ENV container=docker" \
        "STOPSIGNAL SIGRTMIN+3" \
        'CMD ["/usr/local/sbin/machine-init"]' >"$folder/Dockerfile"
    rm "$folder/root.tar"
    build "$tag" "$folder"
}

# Where its packages come from, a line each; nothing where mmdebstrap knows.
sources() {
    local suite=$1 mirror pocket
    mirror=$(mirror_of_this_machine)
    case $suite in
        jammy | noble)
            if [[ $mirror != */ubuntu* ]]; then mirror=${UBUNTU_MIRROR:-}; fi
            if [[ -z $mirror ]]; then say "UBUNTU_MIRROR names no mirror of Ubuntu"; return; fi
            # Debian has no package with Ubuntu's key.
            for pocket in "$suite" "$suite-updates" "$suite-security"; do
                echo "deb [signed-by=$PWD/machines/ubuntu-archive.asc] $mirror $pocket main universe"
            done
            ;;
        *) if [[ $mirror == */debian* ]]; then echo "$mirror"; fi ;;
    esac
}

# ---- with an engine ------------------------------------------------------------------------------------------------

# Newer releases have the client in a package of its own.
engine() {
    on_top_of "$1" "$2" \
        "export DEBIAN_FRONTEND=noninteractive && apt-get install -y -q --no-install-recommends docker.io iptables \$(apt-cache show docker-cli >/dev/null 2>&1 && echo docker-cli) && apt-get clean"
}

stocked() {
    on_top_of "$1" "$2" \
        "rm -f /etc/apt/apt.conf.d/docker-clean && apt-get update -q && apt-get install -y -q --no-install-recommends --download-only docker.io nftables logrotate unattended-upgrades systemd-timesyncd restic"
}

# Another machine, after a command that was run in it.
on_top_of() {
    local bare tag=$2 folder
    bare=$("$PWD/machines.sh" image "$1") || exit
    folder=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$folder'" EXIT
    printf '%s\n' "FROM $bare" "RUN $3" >"$folder/Dockerfile"
    build "$tag" "$folder"
}

# With the machine's own network: the packages come also where the engine's containers have no way out.
build() {
    docker build --quiet --network host --tag "$1" "$2" >&2 || cannot "$1 could not be built"
}

# ---- cgroups -------------------------------------------------------------------------------------------------------

# The hierarchies of cgroup v1 that systemd in a container would otherwise make for itself: once it has, no other container
# of the machine can be measured any more.
cgroups() {
    local name folder
    if [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]]; then return; fi
    for name in perf_event hugetlb net_cls,net_prio; do
        folder=/sys/fs/cgroup/$name
        mkdir -p "$folder"
        mountpoint -q "$folder" || mount -t cgroup -o "$name" cgroup "$folder" || cannot "no cgroups can be mounted here"
    done
}

case ${1:-} in
    image) image "${2:-}" ;;
    cgroups) cgroups ;;
    *) fail "usage: machines.sh image NAME | cgroups" ;;
esac
