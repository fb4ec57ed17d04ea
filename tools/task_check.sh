#!/usr/bin/env bash
# ./run check: everything that can be said about the sources without running them.
# ./run check --fix formats them first.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

setup_tools test
setup_tools bench
setup_python
need_packages "./run check" clang shellcheck git || exit 1
setup_venv test || die "./run check needs numpy's types, and no package index is reachable"
setup_venv check || die "./run check needs clang-format, ruff and mypy, and no package index is reachable"
PATH=$VENV/bin:$PATH
cd "$ROOT"

# Our files, those not yet committed too.
files() { git ls-files -co --exclude-standard -- "$@" | while read -r f; do [[ ! -f $f ]] || echo "$f"; done; }
mapfile -t c_files < <(files '*.c' '*.h' '*.cc')
mapfile -t scripts < <(files run .ci/run '*.sh')

warnings() { # warnings COMPILER COMPILER++
  build_in "$ROOT/build/check-$1" dev -DCMAKE_C_COMPILER="$1" -DCMAKE_CXX_COMPILER="$2" -DISTHMUS_WERROR=ON \
    -DISTHMUS_BUILD_TESTS=ON -DISTHMUS_BUILD_BENCH=ON "-DISTHMUS_PYTHON=$PYTHON" "$(numpy_headers)"
}

types() {
  export MYPYPATH=$ROOT/build/check-gcc/python PYTHONPATH=$ROOT/build/check-gcc/python
  mypy --config-file mypy.ini -p isthmus
}

uses() { # by somebody else's program: what is right, and mistakes that have to be found
  export MYPYPATH=$ROOT/build/check-gcc/python PYTHONPATH=$ROOT/build/check-gcc/python
  mypy --config-file mypy.ini tests/typing
}

stubs() {
  export MYPYPATH=$ROOT/build/check-gcc/python PYTHONPATH=$ROOT/build/check-gcc/python
  stubtest --mypy-config-file mypy.ini --ignore-missing-stub --allowlist tools/stubtest-allow.txt isthmus
}

if [[ ${1:-} == --fix ]]; then
  clang-format -i "${c_files[@]}"
  ruff check -q --fix-only .
  ruff format -q .
fi

results_begin check
attempt "clang-format" clang-format --dry-run -Werror "${c_files[@]}"
attempt "ruff check" ruff check -q .
attempt "ruff format" ruff format -q --check --diff .
attempt "shellcheck" shellcheck -x -S warning "${scripts[@]}"
attempt "repository rules" bash tools/repo_rules.sh
attempt "warnings of gcc" warnings gcc g++
attempt "warnings of clang" warnings clang clang++
attempt "mypy" types
attempt "types in use" uses
attempt "stubtest" stubs
results_end
