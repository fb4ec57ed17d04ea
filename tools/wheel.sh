# shellcheck shell=bash
# Sourced by package.sh and task_matrix.sh: makes wheels, and tries them where nothing else is installed.

# As pyproject.toml has it for cibuildwheel.
PORTABLE=(-C cmake.define.ISTHMUS_TLSDESC=OFF)

# repair TOOLS RAW OUT: auditwheel, of the environment TOOLS, says which systems the wheel in RAW is for; it lands in OUT.
repair() {
  local tools=$1 raw=$2 out=$3
  PATH=$tools/bin:$PATH auditwheel repair -w "$out" "$raw"/isthmus-*.whl >"$out/log" 2>&1 || { tail -n 5 "$out/log"; return 1; }
  compgen -G "$out/isthmus-*manylinux*.whl" >/dev/null || { echo "no manylinux wheel: $(ls "$out")"; return 1; }
  basename "$out"/isthmus-*.whl
}

# make_wheel TOOLS OUT: a wheel of the checkout for the Python of the environment TOOLS, built with what is pinned there.
make_wheel() {
  local tools=$1 out=$2
  "$tools/bin/python" -m pip -q --disable-pip-version-check wheel "${PORTABLE[@]}" --no-deps --no-build-isolation -w "$out/raw" "$ROOT" &&
    repair "$tools" "$out/raw" "$out"
}

# empty_venv PYTHON FOLDER WHEEL: an environment with this wheel and nothing else, without an index.
empty_venv() {
  "$1" -m venv "$2" && "$2/bin/python" -m pip -q --disable-pip-version-check install --no-index "$3" &&
    [[ $("$2/bin/python" -m pip --disable-pip-version-check list --format freeze | grep -vcE '^(pip|setuptools|wheel)==') == 1 ]]
}

# try_wheel LABEL PYTEST_PYTHON VENV ARGUMENT...: tests/package, by a Python that has pytest, of what is installed in VENV.
try_wheel() {
  local label=$1 python=$2
  ISTHMUS_WHEEL_PYTHON=$3 run_pytest "$label" "$python" "${@:4}"
}

# matrix_wheel PYTHON TAG TOOLS PYTEST_PYTHON: pip install of a wheel into an empty environment, and the quick start there.
matrix_wheel() {
  local python=$1 tag=$2 tools=$3 pytest=$4 work
  work=$(mktemp -d)
  attempt "$tag: a wheel" make_wheel "$tools" "$work"
  if attempt_ok "$tag: pip install dist/*.whl in an empty environment" empty_venv "$python" "$work/venv" "$work"/isthmus-*.whl; then
    PYTHONPATH='' try_wheel "$tag-wheel" "$pytest" "$work/venv/bin/python" tests/package/test_wheel.py
  fi
  rm -rf "$work"
}
