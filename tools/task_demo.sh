#!/usr/bin/env bash
# ./run demo [PATH]: examples/demo.py on the built package. Only the plot needs a package index.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

setup_package
setup_venv demo || say "numpy and matplotlib can't be installed here; the demo goes on with what there is"
PYTHONPATH=$BUILD/python exec "$(venv_python)" "$ROOT/examples/demo.py" "$@"
