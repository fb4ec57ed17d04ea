#!/usr/bin/env bash
# Downloads a Debian or Ubuntu source package without touching the machine's apt configuration.
#
#   tools/apt_source.sh DIR PACKAGE VERSION [SUITE]
#
# The upstream archive (.orig.tar.*) of the source whose version starts with VERSION lands in DIR. The mirrors are the machine's
# own; deb-src is switched on in a temporary copy only, which is removed at the end. With SUITE
# (Debian only) that suite is asked instead of the installed one.
set -euo pipefail

dir=$(realpath "$1") package=$2 version=$3 suite=${4:-}

command -v apt-get >/dev/null || { echo "apt_source: this system has no apt-get" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{parts,lists/partial,cache/archives/partial}

# All of the machine's sources, turned into source entries.
copy_sources() {
  local file
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [[ -f $file ]] || continue
    sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]+/deb-src /p' "$file" >"$work/parts/$(basename "$file" .list).list"
  done
  for file in /etc/apt/sources.list.d/*.sources; do
    [[ -f $file ]] || continue
    sed -E 's/^Types:.*/Types: deb-src/' "$file" >"$work/parts/$(basename "$file")"
  done
}

# One entry for SUITE, on the mirror and with the keyring that serve the installed suite.
one_suite() {
  local own mirror
  own=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016 # apt expands these
  mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
    awk -v own="$own" '$1 == own && !n++ { print $2 }')
  [[ -n $mirror ]] || { echo "apt_source: no mirror of the installed suite found" >&2; exit 1; }
  printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "$mirror" "$suite" /usr/share/keyrings/debian-archive-keyring.gpg >"$work/parts/suite.sources"
}

apt() { # apt TOOL ARGS...: apt-get or apt-cache within the temporary folder
  local tool=$1
  shift
  "$tool" -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$work/parts" \
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" \
    -o APT::Sandbox::User="$(id -un)" \
    -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 "$@"
}

if [[ -n $suite ]]; then one_suite; else copy_sources; fi
# Another party's source that is down must not stop us, so update may fail; what counts comes next.
apt apt-get update >"$work/log" 2>&1 || true
full=$(apt apt-cache showsrc "$package" 2>>"$work/log" | awk -v v="$version" '
  $1 == "Version:" && index($2, v) == 1 && !n++ { print $2 }')
if [[ -z $full ]]; then
  tail -n 5 "$work/log" >&2
  echo "apt_source: no source package $package $version" >&2
  exit 1
fi
cd "$dir"
# A mirror may lack the packaging files for a while; the upstream archive is what is wanted.
apt apt-get source --download-only "$package=$full" >>"$work/log" 2>&1 || compgen -G "*.orig.tar.*" >/dev/null ||
  { tail -n 5 "$work/log" >&2; exit 1; }
