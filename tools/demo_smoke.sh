#!/usr/bin/env bash
# Runs ./run demo as a user would and looks whether its final figures are there, for .ci/run.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

demo() {
  "$ROOT/run" demo | tee "$RESULTS/demo.out"
}

# figure NAME PATTERN: the demo printed such a line.
figure() { attempt "demo: $1" grep -qiE -e "$2" "$RESULTS/demo.out"; }

results_begin demo
attempt "demo: finishes" demo
figure "array bytes copied" 'bytes copied.*[0-9]'
figure "the workers' time" '[0-9]+ (worker )?interpreters.*[0-9.]+ s'
figure "one interpreter's time" 'one interpreter.*[0-9.]+ s'
figure "the process pool's time" 'process.*[0-9.]+ s'
results_end
