#!/usr/bin/env bash
# ./run stress: every plain C program, and the storms in Python, for ISTHMUS_STRESS_SECONDS each.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

export ISTHMUS_STRESS_SECONDS=${ISTHMUS_STRESS_SECONDS:-60}
export ISTHMUS_TEST_SECONDS=$((ISTHMUS_STRESS_SECONDS * 5 + 300))
setup_tools test
setup_python
require_pytest
setup_build dev -DISTHMUS_BUILD_TESTS=ON
export PYTHONPATH=$BUILD/python
cd "$ROOT"

results_begin stress
run_c_tests C "$BUILD/tests/c" plain
run_pytest "$TAG" "$VENV/bin/python" tests/python/test_storm.py tests/python/test_ownership_storm.py -s
results_end
