#!/usr/bin/env bash
# ./run stress: every plain C program and every tests/stress/*.py for ISTHMUS_STRESS_SECONDS each.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

export ISTHMUS_STRESS_SECONDS=${ISTHMUS_STRESS_SECONDS:-60}
export ISTHMUS_TEST_SECONDS=$((ISTHMUS_STRESS_SECONDS * 5 + 300))
setup_tools test
setup_python
setup_build dev -DISTHMUS_BUILD_TESTS=ON
setup_venv test || say "no numpy here; stress tests that need it will say so"
export PYTHONPATH=$BUILD/python
cd "$ROOT"

results_begin stress
run_c_tests C "$BUILD/tests/c" plain
for script in tests/stress/*.py; do
  [[ -f $script ]] || continue
  echo "--- $script"
  attempt "$script" timeout -k 10 "$ISTHMUS_TEST_SECONDS" "$(venv_python)" "$script"
done
results_end
