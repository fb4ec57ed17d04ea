#!/usr/bin/env bash
# The package as a user gets it, for .ci/run: a source distribution, the wheel that pip makes of it, and what works where nothing but
# that is installed: from Python, from C, and in extension modules of others (examples/extensions).
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"
# shellcheck source=tools/wheel.sh
. "$ROOT/tools/wheel.sh"

setup_tools test # pkg-config and a C++ compiler, for the examples
setup_python
cd "$ROOT"
results_begin package
if ! { setup_venv test && setup_venv wheel && setup_venv package; }; then
  result skipped 1 "package: the package index is not reachable"
  results_end
  exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
venv=$work/venv
pip=("$venv/bin/python" -m pip -q --disable-pip-version-check)
export PYTHONPATH=

sdist() { "$VENV/bin/python" -m build -q -nx --sdist --outdir "$work" "$ROOT"; }
# As pip install does with it: unpacked elsewhere, build requirements from the index.
from_sdist() { "$VENV/bin/python" -m pip -q --disable-pip-version-check wheel "${PORTABLE[@]}" --no-deps -w "$work/raw" "$work"/isthmus-*.tar.gz; }
extras() { "${pip[@]}" install --only-binary :all: -c "$ROOT/tools/requirements-test.txt" -c "$ROOT/tools/requirements-numpy.txt" "${wheel}[$1]"; }
identifiers() { # of the wheels that cibuildwheel would make; also: its configuration has no mistake that it sees
  local found
  found=$("$VENV/bin/cibuildwheel" --platform linux --archs x86_64 --print-build-identifiers "$ROOT") &&
    [[ $(sort <<<"$found") == $(printf '%s\n' cp31{2,3,4,5}-{many,musl}linux_x86_64 | sort) ]] || { echo "$found"; return 1; }
}

attempt "cibuildwheel: the wheels of its configuration" identifiers
if attempt_ok "a source distribution" sdist; then
  ISTHMUS_SDIST=$(echo "$work"/isthmus-*.tar.gz) run_pytest "$TAG-sdist" "$VENV/bin/python" tests/package/test_sdist.py
fi
attempt "pip wheel of it" from_sdist
attempt "auditwheel" repair "$VENV" "$work/raw" "$work"
wheel=$(echo "$work"/isthmus-*.whl)
if attempt_ok "pip install of the wheel in an empty environment" empty_venv "$PYTHON" "$venv" "$wheel"; then
  try_wheel "$TAG-wheel" "$VENV/bin/python" "$venv/bin/python" tests/package/test_wheel.py tests/package/test_examples.py
  attempt "pip install isthmus[notebook]" extras notebook
  try_wheel "$TAG-notebook" "$VENV/bin/python" "$venv/bin/python" tests/package/test_extras.py -k notebook
  if extras numpy; then
    try_wheel "$TAG-numpy" "$VENV/bin/python" "$venv/bin/python" tests/package/test_extras.py -k numpy
    case $TAG in # the first numpy for each: one module serves all
      cp312) older=1.26.4 ;;
      cp313) older=2.1.0 ;;
      *) older= ;;
    esac
    if [[ $older ]]; then
      attempt "numpy $older" "${pip[@]}" install --only-binary :all: "numpy==$older"
      try_wheel "$TAG-numpy-$older" "$VENV/bin/python" "$venv/bin/python" tests/package/test_extras.py -k numpy
    fi
  else
    result skipped 1 "package: isthmus[numpy] (no numpy for $("$PYTHON" -V))"
  fi
fi
results_end
