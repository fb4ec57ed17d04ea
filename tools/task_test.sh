#!/usr/bin/env bash
# ./run test [ARGS]: the C tests, the Python tests on the chosen Python, and the models where their
# tools are. With ARGS only pytest runs and gets them.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

setup_tools test
setup_python
require_pytest # first: it brings numpy, whose headers the build uses
want_consumers
setup_build dev -DISTHMUS_BUILD_TESTS=ON
export PYTHONPATH=$BUILD/python
cd "$ROOT"

if (($#)); then exec "$VENV/bin/python" -m pytest --timeout 300 -p no:cacheprovider "$@"; fi

results_begin test
run_c_tests C "$BUILD/tests/c" crit plain
run_pytest "$TAG" "$VENV/bin/python" tests/python
if [[ -z ${CI:-} ]]; then # there they are a stage of their own
  HERD7=$(command -v herd7 || true) SPIN=$(command -v spin || true)
  if [[ -n $HERD7$SPIN ]]; then run_models; else result skipped 1 "models: neither herd7 nor spin is installed"; fi
fi
results_end
