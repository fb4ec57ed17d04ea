#!/usr/bin/env bash
# numpy's own tests, of what has to do with the memory of its arrays, under isthmus.numpy_allocator(), for .ci/run. A test that passes with
# plain numpy must pass. What plain numpy gives is kept in the user's cache by the version of numpy, of Python, and of the tests' requirements.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

modules=(numpy._core.tests.test_{multiarray,indexing,mem_policy,dlpack} numpy.lib.tests)

setup_tools build
setup_python
results_begin numpy
if ! setup_venv numpytests || ! "$VENV/bin/python" -c 'import numpy, pytest, hypothesis' 2>/dev/null; then
  result skipped 1 "numpy's tests: what they need can't be installed for $("$PYTHON" -V)"
  results_end
  exit
fi
setup_build dev
cd "$ROOT"
# Arrays of several GiB take half of the time, and machines don't always have them: numpy skips those tests by this.
if [[ -z ${ISTHMUS_FULL:-} ]]; then export NPY_AVAILABLE_MEM="1 GB"; fi
PATH=$VENV/bin:$PATH # meson and ninja, by which test_mem_policy builds its own extension
version=$(python -c 'import numpy; print(numpy.__version__)')
site=$(python -c 'import numpy, os; print(os.path.dirname(os.path.dirname(numpy.__file__)))')
wanted=$({ cat "$VENV/.isthmus-numpytests"; echo "${NPY_AVAILABLE_MEM:-}"; } | md5sum)
plain=$CACHE/numpy-$version-$TAG-${wanted:0:8}.xml
ours=$RESULTS/numpy.allocator.xml

suite() { # suite REPORT ARGUMENT...
  local report=$1 work
  shift
  work=$(mktemp -d) # tests write files, and our settings of pytest must not be numpy's
  (cd "$work" && python -m pytest -q -p no:cacheprovider --timeout 300 -c /dev/null --rootdir "$site" --junitxml "$report" "$@" \
    --pyargs "${modules[@]}") || true
  rm -rf "$work"
}

if [[ ! -s $plain ]]; then
  say "numpy's tests with plain numpy $version, two minutes ..."
  suite "$RESULTS/numpy.plain.xml"
  mv "$RESULTS/numpy.plain.xml" "$plain" # a whole report or none
fi
PYTHONPATH=$BUILD/python:$ROOT/tests/numpy suite "$ours" -p allocator_plugin | tee "$RESULTS/numpy.allocator.out"
while read -r kind count name; do result "$kind" "$count" "$name"; done < <(
  python "$ROOT/tools/numpy_compare.py" "$plain" "$ours")
attempt "numpy's tests ran under the allocator" grep -q '^under the allocator at the end of [1-9]' "$RESULTS/numpy.allocator.out"
results_end
