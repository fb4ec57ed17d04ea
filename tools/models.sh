#!/usr/bin/env bash
# The litmus tests and Promela models, for .ci/run: herd7 from the machine, else from the Debian
# testing root.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

need_packages "the models" spin gcc libc6-dev || say "going on without spin"
HERD7=$(command -v herd7 || true) SPIN=$(command -v spin || true)
if [[ -z $HERD7 ]] && "$ROOT/tools/testing_root.sh" make >/dev/null; then
  HERD7="$ROOT/tools/testing_root.sh run herd7"
fi
results_begin models
run_models
results_end
