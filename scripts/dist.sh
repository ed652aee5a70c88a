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

# What compiles C for a target: the packages' own compilers, and what they need.
compiler() {
    case $1 in
        x86_64-unknown-linux-musl) echo musl-gcc musl-tools ;;
        aarch64-unknown-linux-musl)
            # On a machine of that kind musl's own wrapper does.
            if [[ $(uname -m) == aarch64 ]]; then echo musl-gcc musl-tools; else echo aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross; fi
            ;;
    esac
}

# A compiler for another machine may be there without its headers.
compiles() { "$1" -fsyntax-only -include stdlib.h -include string.h -x c /dev/null 2>/dev/null; }

build() {
    local machine=$1 target="$1-unknown-linux-musl" program packages name
    read -r program packages < <(compiler "$target")
    if ! compiles "$program"; then
        # shellcheck disable=SC2086 # one word each
        { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null && apt_install $packages && compiles "$program"; } ||
            { say "$machine: $program compiles nothing here ($packages)"; return 1; }
    fi
    rustup target add "$target" >/dev/null 2>&1 || { say "$machine: rustup has no $target"; return 1; }
    name=${target//-/_}
    # Headers of another C library may promise checks that this one does not have.
    export "CC_$name=$program" "CFLAGS_$name=-U_FORTIFY_SOURCE"
    # musl's own wrapper would link a program that needs its loader. For a foreign machine the compiler's own linker does; its headers are the
    # GNU library's, of whose other names for the same calls musl knows none (files are large there anyhow).
    if [[ $machine != "$(uname -m)" ]]; then
        export "CARGO_TARGET_${name^^}_LINKER=rust-lld" "CFLAGS_$name=-U_FORTIFY_SOURCE -DSQLITE_DISABLE_LFS"
    fi
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
