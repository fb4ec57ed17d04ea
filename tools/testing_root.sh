#!/usr/bin/env bash
# A Debian testing system in a folder, for the Pythons and tools that the machine itself lacks.
#
#   tools/testing_root.sh make          makes it if there is none younger than 30 days, prints its path
#   tools/testing_root.sh run COMMAND   runs a command in it, in the checkout, which is mounted there
#
# It lives in the user's cache. Mounts are made in a mount namespace of the command's own, so the
# kernel removes them whatever happens.
set -euo pipefail
# shellcheck source=tools/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(
  gcc libc6-dev make cmake ninja-build pkgconf bzip2 libcriterion-dev
  python3.14-dev python3.14-venv python3.15-dev python3.15-venv
  python3-numpy python3-pytest python3-pytest-timeout python3-hypothesis python3-cloudpickle
  herdtools7 spin
)
key=$(printf '%s\n' "${packages[@]}" "$(uname -m)" | sha256sum | cut -c 1-8)
root=$CACHE/debian-testing-$key

fresh() { [[ -n $(find "$root/.made" -mtime -30 2>/dev/null) ]]; }

remove_tree() { # never across a mount
  as_root rm -rf --one-file-system "$@"
}

bootstrap() { # bootstrap SUITE FOLDER; its caller asks for its status, so set -e is off in here
  local mirror=${ISTHMUS_DEBIAN_MIRROR:-$(apt_mirror)}
  # The script is named because an older debootstrap does not know the newest suites by name.
  as_root unshare --mount debootstrap --variant=minbase --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    "$1" "$2" "$mirror" /usr/share/debootstrap/scripts/sid || return 1
  apt-config dump | grep -E '^Acquire::(http|https|Check)' | as_root tee "$2/etc/apt/apt.conf.d/80host" >/dev/null || true
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$2/usr/sbin/policy-rc.d" >/dev/null
  as_root chmod +x "$2/usr/sbin/policy-rc.d" &&
    enter "$2" / apt-get -qq update &&
    enter "$2" / env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${packages[@]}" &&
    enter "$2" / apt-get clean &&
    as_root touch "$2/.made"
}

# enter FOLDER DIRECTORY COMMAND...: the command in the folder as its root file system.
enter() {
  # shellcheck disable=SC2016 # for the inner shell
  as_root env PATH=/usr/sbin:/usr/bin:/sbin:/bin TMPDIR=/tmp HOME=/root XDG_CACHE_HOME=/root/.cache \
    unshare --mount bash -euc '
      root=$1 checkout=$2 cache=$3 directory=$4
      shift 4
      mount --rbind /dev "$root/dev"
      mountpoint -q "$root/dev/shm" || { mkdir -p "$root/dev/shm"; mount -t tmpfs shm "$root/dev/shm"; }
      mount -t proc proc "$root/proc"
      mount -t tmpfs tmp "$root/tmp"
      mkdir -p "$root$checkout" "$root/root/.cache/isthmus"
      mount --bind "$checkout" "$root$checkout"
      mount --bind "$cache" "$root/root/.cache/isthmus"
      exec chroot "$root" sh -c "cd \"\$0\" && exec \"\$@\"" "$directory" "$@"
    ' enter "$1" "$ROOT" "$CACHE" "${@:2}"
}

make_root() {
  local suite
  fresh && return
  can_be_root || die "a Debian testing root needs root rights"
  have apt-get || die "a Debian testing root needs debootstrap, and this system has no apt-get"
  [[ -n ${ISTHMUS_DEBIAN_MIRROR:-$(apt_mirror)} && -f /usr/share/keyrings/debian-archive-keyring.gpg ]] ||
    die "no Debian mirror is configured on this machine"
  need_packages "a Debian testing root" debootstrap util-linux || exit 1
  take_lock "$CACHE/testing-root.lock" "the Debian testing root"
  fresh && return
  remove_tree "$CACHE"/.debian-testing-* # of a maker that was killed
  work=$(mktemp -d "$CACHE/.debian-testing-XXXXXX")
  trap 'remove_tree "$work"' EXIT
  for suite in testing sid; do # the rolling suites can miss a file for a day
    say "making a Debian $suite root, about 3 minutes, once per 30 days ..."
    if bootstrap "$suite" "$work/$suite" >"$work/log" 2>&1; then
      if [[ -d $root ]]; then mv "$root" "$work/old"; fi
      mv "$work/$suite" "$root"
      # What earlier lists of packages made, once it is too old to be used.
      find "$CACHE" -maxdepth 2 -path '*/debian-testing-*/.made' -mtime +30 -printf '%h\0' |
        while read -rd '' old; do remove_tree "$old"; done
      return
    fi
    tail -n 5 "$work/log" >&2
  done
  if [[ -d $root ]]; then say "could not refresh the Debian testing root, going on with the old one"
  else die "could not make a Debian testing root"; fi
}

case ${1:-} in
  make) make_root; echo "$root" ;;
  run) shift; [[ -f $root/.made ]] || make_root; enter "$root" "$ROOT" "$@" ;;
  *) die "usage: tools/testing_root.sh make | run COMMAND" ;;
esac
