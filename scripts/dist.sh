#!/usr/bin/env bash
# The programs of a release, in a folder: `cutover` for this machine, `cutover-host` for servers, static, for each kind of machine that can be
# built here. `cutover setup` and `cutover upgrade` find them beside `cutover`.
#
#   dist.sh [FOLDER]          into FOLDER, else target/dist
#
# What it needs and lacks it installs where it may (root on Debian or Ubuntu). A kind of machine that cannot be built here is said and left
# out. Exit codes: 0 done, the line says for which machines · 1 this machine's own kind could not be built.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
source scripts/packages.sh

readonly FOLDER=${1:-target/dist}

say() { printf 'dist.sh: %s\n' "$*" >&2; }

# What compiles C for a target: the packages' own compilers.
compiler() {
    case $1 in
        x86_64-unknown-linux-musl) echo musl-gcc musl-tools ;;
        aarch64-unknown-linux-musl)
            # On a machine of that kind musl's own wrapper does.
            if [[ $(uname -m) == aarch64 ]]; then echo musl-gcc musl-tools; else echo aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu; fi
            ;;
    esac
}

build() {
    local machine=$1 target="$1-unknown-linux-musl" program package name
    read -r program package < <(compiler "$target")
    if ! command -v "$program" >/dev/null; then
        { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null && apt_install "$package"; } || { say "$machine: there is no $program ($package)"; return 1; }
    fi
    rustup target add "$target" >/dev/null 2>&1 || { say "$machine: rustup has no $target"; return 1; }
    name=${target//-/_}
    # Headers of another C library may promise checks that this one does not have.
    export "CC_$name=$program" "CFLAGS_$name=-U_FORTIFY_SOURCE"
    # musl's own wrapper would link a program that needs its loader. For a foreign machine the compiler's own linker does.
    if [[ $machine != "$(uname -m)" ]]; then export "CARGO_TARGET_${name^^}_LINKER=rust-lld"; fi
    cargo build --release --locked --package cutover-host-bin --target "$target" >&2 || return 1
    place "target/$target/release/cutover-host" "cutover-host-$machine-linux"
}

place() {
    if readelf --program-headers "$1" | grep -q INTERP; then
        say "$2 is not static"
        return 1
    fi
    install -m 0755 "$1" "$FOLDER/$2"
}

mkdir -p "$FOLDER"
built=()
for machine in x86_64 aarch64; do
    if build "$machine"; then built+=("$machine"); else say "no cutover-host for $machine"; fi
done
[[ " ${built[*]} " == *" $(uname -m) "* ]] || exit 1
cargo build --release --locked --package cutover >&2
install -m 0755 target/release/cutover "$FOLDER/cutover"
(cd "$FOLDER" && sha256sum cutover cutover-host-*-linux >SHA256SUMS)
echo "$FOLDER: cutover, and cutover-host for ${built[*]}"
