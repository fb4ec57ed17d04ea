#!/usr/bin/env bash
# The storms of processes, for .ci/run: random operations, kills and stops; in C for a third of the time, in Python for the rest.
#
#   tools/storm.sh [SECONDS]   all together (180); ISTHMUS_SEED repeats one
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

seconds=${1:-180}
export ISTHMUS_TEST_SECONDS=$((seconds * 2 + 300))
setup_tools test
setup_python
require_pytest
setup_build dev -DISTHMUS_BUILD_TESTS=ON
export PYTHONPATH=$BUILD/python
cd "$ROOT"

results_begin storm
export ISTHMUS_STRESS_SECONDS=$((seconds / 3))
run_plain C "$BUILD/tests/c/plain_storm"
export ISTHMUS_STRESS_SECONDS=$((seconds - seconds / 3))
run_pytest "$TAG" "$VENV/bin/python" tests/python/test_storm.py -s
results_end
