#!/usr/bin/env bash
# ./run python [ARGS]: the chosen Python with the package built and importable.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

setup_package
setup_venv numpy || say "numpy can't be installed here; going on without it"
PYTHONPATH=$BUILD/python${PYTHONPATH:+:$PYTHONPATH} exec "$(venv_python)" "$@"
