#!/usr/bin/env bash
# Builds CPython 3.13 from the source package of Debian's newer stable release into the cache.
# For Debian 12, whose own Python is too old. No profile-guided optimisation: minutes, not an hour.
set -euo pipefail
# shellcheck source=tools/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[[ $(sed -n 's/^ID=//p' /etc/os-release) == debian ]] || exit 1
need_packages "building Python" gcc libc6-dev make pkg-config xz-utils libssl-dev zlib1g-dev libffi-dev \
  liblzma-dev libbz2-dev libsqlite3-dev || exit 1
take_lock "$CACHE/cpython.lock" "CPython 3.13"
compgen -G "$CACHE/cpython-*/bin/python3" >/dev/null && exit
rm -rf "$CACHE"/.cpython-* # of a builder that was killed
work=$(mktemp -d "$CACHE/.cpython-XXXXXX")
trap 'rm -rf "$work"' EXIT

build() { # its caller asks for its status, so set -e is off in here
  "$ROOT/tools/apt_source.sh" "$work" python3.13 3.13. trixie &&
    cd "$work" &&
    tar -xJf python3.13_*.orig.tar.xz &&
    cd [Pp]ython-*3.13*/ &&
    ./configure -q --prefix="$prefix" --without-static-libpython &&
    make -s -j"$(nproc)" &&
    make -s install DESTDIR="$work/out"
}

say "building CPython 3.13, about 5 minutes on 2 cores, once per machine ..."
prefix=$CACHE/cpython-3.13
(build) >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; die "building CPython failed"; }
mv "$work/out$prefix" "$prefix"
