# shellcheck shell=bash
# Sourced by the scripts of this folder: where things are, what is said, which packages are there.

# shellcheck disable=SC2034 # used by those who source this
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export LC_ALL=C.UTF-8
HOME=${HOME:-~} # where it is unset, bash takes ~ from the user database
export HOME
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/isthmus
mkdir -p "$CACHE"

say() { echo "isthmus: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs nothing, says why, unless this is a system that the scripts know.
require_known_system() {
  local id version
  id=$(sed -n 's/^ID=//p' /etc/os-release 2>/dev/null | tr -d '"')
  version=$(sed -n 's/^VERSION_ID=//p' /etc/os-release 2>/dev/null | tr -d '"')
  case $id in
    debian) [[ ${version:-99} -lt 12 ]] || return 0 ;; # testing and unstable have no number
    ubuntu) [[ ${version%%.*} -lt 24 ]] || return 0 ;;
  esac
  [[ -z ${ISTHMUS_ANY_OS:-} ]] || return 0
  die "made for Debian 12 and 13 and Ubuntu 24.04 and later; this is ${id:-unknown} ${version}." \
    "ISTHMUS_ANY_OS=1 tries all the same (install compilers and libraries yourself)."
}

# take_lock FILE WHAT: until this process ends, no other makes WHAT.
take_lock() {
  exec 9>"$1"
  flock -n 9 && return
  say "waiting: somebody else is making $2 ..."
  flock 9
}

can_be_root() { [[ $(id -u) == 0 ]] || sudo -n true 2>/dev/null; }
as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi; }

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 \
    -o Dpkg::Use-Pty=0 "$@" </dev/null
}

installed() { [[ $(dpkg-query -W -f '${Status}' "$1" 2>/dev/null) == *"ok installed" ]]; }
all_installed() {
  local package
  for package; do installed "$package" || return 1; done
}
available() { [[ $(apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }

# need_packages PURPOSE PACKAGE...: installs those that are missing, or says which they are.
need_packages() {
  local purpose=$1 package log
  local -a missing=()
  shift
  have dpkg-query || return 0 # another system, tried at the user's wish
  for package; do installed "$package" || missing+=("$package"); done
  ((${#missing[@]})) || return 0
  if ! can_be_root; then
    say "$purpose needs packages, and this user may not install them. Please run"
    echo "    sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    return 1
  fi
  say "installing packages for $purpose, up to a minute or two: ${missing[*]} ..."
  log=$(mktemp)
  for package in "${missing[@]}"; do
    available "$package" || { apt_get update >"$log" 2>&1 || true; break; }
  done
  apt_get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 ||
    { apt_get update && apt_get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 ||
    { tail -n 15 "$log" >&2; rm -f "$log"; say "could not install: ${missing[*]}"; return 1; }
  rm -f "$log"
}

# The mirror that serves the installed suite, whatever the machine is set up with.
apt_mirror() {
  # shellcheck disable=SC2016 # apt expands these
  apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk -v own="$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)" '$1 == own && !n++ { print $2 }'
}
