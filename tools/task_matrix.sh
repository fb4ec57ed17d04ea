#!/usr/bin/env bash
# ./run matrix: the tests marked "matrix" on every Python of 3.12 to 3.15 but the main one, which
# ./run test covers in full, and a wheel for each: repaired, installed where nothing else is, and tried there (tools/wheel.sh). Those
# the machine lacks come from a Debian testing root, where the C tests run too, with its newer compiler and C library.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"
# shellcheck source=tools/wheel.sh
. "$ROOT/tools/wheel.sh"

marked() { # the marked tests with PYTHON, run by $1
  export PYTHONPATH=$BUILD/python
  run_pytest "$TAG" "$1" -m matrix tests/python
}

on_host() {
  PYTHON=$1 TAG=$(python_tag "$1")
  require_pytest
  setup_build dev -DISTHMUS_BUILD_TESTS=OFF
  marked "$VENV/bin/python"
  if setup_venv wheel; then
    matrix_wheel "$PYTHON" "$TAG" "$VENV" "$VENV/bin/python"
  else
    result skipped 1 "not covered: a wheel for $TAG (the package index is not reachable)"
  fi
}

# Runs inside the root: build and test there with the system's own pytest and numpy.
in_root() {
  local c_tests=$2
  STAGE=matrix PYTHON=/usr/bin/python$1 TAG=$(python_tag "/usr/bin/python$1")
  "$ROOT/tools/jemalloc.sh" >/dev/null
  build_in "$ROOT/build/testing-$TAG" dev -DISTHMUS_BUILD_TESTS="$c_tests" "-DISTHMUS_PYTHON=$PYTHON" "$(numpy_headers)"
  if [[ $c_tests == ON ]]; then run_c_tests testing-C "$BUILD/tests/c" crit plain; fi
  marked "$PYTHON"
  wheel_in_root
}

# The root has no package index: what makes wheels comes from a folder that the host filled. numpy's headers are the root's own.
wheel_in_root() {
  local tools
  [[ -f $WHEELHOUSE/.complete ]] || { result skipped 1 "not covered: a wheel for $TAG (the package index is not reachable)"; return; }
  tools=$(mktemp -d)
  if "$PYTHON" -m venv --system-site-packages "$tools" &&
    "$tools/bin/python" -m pip -q --disable-pip-version-check install --no-index --find-links "$WHEELHOUSE" -r "$ROOT/tools/requirements-wheel.txt"; then
    matrix_wheel "$PYTHON" "$TAG" "$tools" "$PYTHON"
  else
    result failed 1 "$TAG: what makes wheels, from $WHEELHOUSE"
  fi
  rm -rf "$tools"
}

fill_wheelhouse() {
  rm -rf "$WHEELHOUSE"
  "$PYTHON" -m pip -q --disable-pip-version-check download --retries 1 --timeout 30 --only-binary :all: -d "$WHEELHOUSE" \
    -r "$ROOT/tools/requirements-wheel.txt" >/dev/null 2>&1 && touch "$WHEELHOUSE/.complete"
}

WHEELHOUSE=$ROOT/build/wheelhouse
if [[ ${1:-} == --inside ]]; then
  in_root "$2" "$3"
  exit
fi

setup_tools test
setup_python
cd "$ROOT"
results_begin matrix
main=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
found=$("$ROOT/tools/python.sh" --list)
c_tests=ON
rm -f "$WHEELHOUSE/.complete"
for version in 3.12 3.13 3.14 3.15; do
  echo "--- $version"
  path=$(awk -v v=$version '$1 == v { print $2 }' <<<"$found")
  if [[ $version == "$main" ]]; then
    echo "$version is the main Python here: ./run test covers it"
  elif [[ -n $path ]]; then
    (on_host "$path") || result failed 1 "$version (does not build)"
  elif ! why=$("$ROOT/tools/testing_root.sh" make 2>&1 >/dev/null); then
    result skipped 1 "not covered: $version (${why##*isthmus: })"
  elif ! "$ROOT/tools/testing_root.sh" run test -x "/usr/bin/python$version"; then
    result skipped 1 "not covered: $version (not on this machine, not in Debian testing)"
  else
    [[ -f $WHEELHOUSE/.complete ]] || fill_wheelhouse || true
    "$ROOT/tools/testing_root.sh" run bash tools/task_matrix.sh --inside $version $c_tests ||
      result failed 1 "$version (does not build)"
    c_tests=OFF
  fi
done
results_end
