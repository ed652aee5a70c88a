# shellcheck shell=bash
# Packages of the distribution, for the scripts that need some. To be sourced.

# Installs them, with a fresh list of packages where the old one does not do.
apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    local options=(-y -q --no-install-recommends -o DPkg::Lock::Timeout=300)
    if ! apt-get install "${options[@]}" "$@" >&2; then
        apt-get update -q >&2 && apt-get install "${options[@]}" "$@" >&2
    fi
}

# Where this machine has its packages from; nothing where it does not say, and then mmdebstrap knows.
mirror_of_this_machine() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^[[:space:]]*#' |
        grep -oE 'https?://[^ ]+/(debian|ubuntu)/?( |$)' | head -n 1 || true
}
