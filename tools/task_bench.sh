#!/usr/bin/env bash
# ./run bench [ARGS]: bench/run.py on a release build. It finds the build by ISTHMUS_BUILD.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

setup_tools bench
setup_python
setup_build release -DISTHMUS_BUILD_BENCH=ON
setup_venv bench || die "the benchmarks need numpy and pyperf"
cd "$ROOT"
ISTHMUS_BUILD=$BUILD PYTHONPATH=$BUILD/python exec "$VENV/bin/python" bench/run.py "$@"
