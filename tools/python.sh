#!/usr/bin/env bash
# Prints the path of the Python to use; see CONTRIBUTING.md, "Which Python".
#
#   tools/python.sh              the one to build and test with, obtained if the machine has none
#   tools/python.sh --list       those the machine has, "3.14 /path" each, best first
#   tools/python.sh --packages   the distribution's packages that give one, if there is none
#
# PYTHON=... decides by itself. Else: the newest on PATH, of pyenv and of uv; the distribution's
# package; uv's download; CPython built from the source package of Debian's newer stable.
set -euo pipefail
# shellcheck source=tools/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# describe PYTHON: "rank 3.14 /real/path" if it is 3.12 or later, with its GIL and with headers,
# else the reason. Rank sorts: releases before pre-releases, then by version.
describe() {
  timeout 20 "$1" -I - 2>/dev/null <<'EOP' || echo "does not run"
import os, sys, sysconfig
version = "%d.%d" % sys.version_info[:2]
if sys.version_info < (3, 12):
    print("is Python " + version + ", older than 3.12")
elif not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("has no Python.h (on Debian and Ubuntu: install python%s-dev)" % version)
else:
    rank = "%d%02d%02d" % (sys.version_info.releaselevel == "final", sys.version_info[1], sys.version_info[2])
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        rank = "free-threaded"
    print("ok", rank, version, getattr(sys, "_base_executable", sys.executable))
EOP
}

candidates() {
  local name
  for name in python3.{15..12} python3; do type -ap "$name" || true; done
  printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 "$CACHE"/cpython-*/bin/python3 \
    "$CACHE"/uv-python/*/bin/python3
  if have uv; then timeout 20 uv python list --only-installed 2>/dev/null | awk '{ print $2 }'; fi
}

# Those that serve, best first, one of each version.
list() {
  local python
  candidates | awk '!seen[$0]++' | while read -r python; do
    [[ ! -x $python ]] || describe "$python"
  done | awk '$1 == "ok" && $2 != "free-threaded" { print $2, $3, $4 }' |
    sort -s -k 1,1nr | awk '!seen[$2]++ { print $2, $3 }'
}

packages() {
  local version
  have apt-cache || return 1
  available python3-dev || { can_be_root && apt_get update >/dev/null 2>&1; } || true
  version=$(apt-cache policy python3-dev 2>/dev/null | sed -n 's/ *Candidate: 3\.\([0-9]*\).*/\1/p')
  [[ ${version:-0} -ge 12 ]] && echo python3-dev python3-venv
}

from_distribution() {
  local -a wanted
  read -ra wanted < <(packages) && { need_packages "Python" "${wanted[@]}" || exit 1; }
}

from_uv() {
  local uv=uv work status=0
  work=$(mktemp -d)
  say "no Python 3.12 or later here; trying uv's download, a minute or so ..."
  if ! have uv; then
    uv=$work/uv/bin/uv
    { timeout 60 python3 -m venv "$work/uv" && timeout 60 "$work/uv/bin/pip" -q install --retries 1 uv; } \
      >/dev/null 2>&1 || status=1
  fi
  ((status)) || UV_PYTHON_INSTALL_DIR=$CACHE/uv-python UV_HTTP_TIMEOUT=20 \
    timeout 120 "$uv" python install -q --no-bin 3.13 >/dev/null 2>&1 || status=1
  rm -rf "$work"
  return "$status"
}

found() { read -r _ path < <(list); }

case ${1:-} in
  --list) list; exit ;;
  --packages) [[ -n ${PYTHON:-} ]] || found || packages || true; exit ;;
esac

if [[ -n ${PYTHON:-} ]]; then
  path=$(command -v "$PYTHON") || die "PYTHON=$PYTHON: no such program"
  answer=$(describe "$path")
  [[ $answer == ok* ]] || die "PYTHON=$PYTHON $answer"
  echo "${answer##* }"
  exit
fi

found || { from_distribution && found; } || { from_uv && found; } || { "$ROOT/tools/build_python.sh" && found; } ||
  die "no Python 3.12 or later with headers found, and none could be installed. PYTHON=/path names one."
echo "$path"
