# shellcheck shell=bash
# Sourced by the tasks of ./run: the Python, its virtual environment, the builds. All of it is
# made once and found again; what has to be made says so.
#
#   setup_python        sets PYTHON and TAG (cp313)
#   setup_venv GROUP    sets VENV; installs tools/requirements-GROUP.txt there
#   setup_build PRESET  sets BUILD (build/PRESET-TAG), configured and built; more arguments go to cmake
#   setup_c_build ...   the same without Python: build/PRESET-c

# shellcheck source=tools/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

require_known_system

setup_python() {
  PYTHON=$("$ROOT/tools/python.sh") || exit 1
  TAG=$(python_tag "$PYTHON")
  export PYTHON TAG
}

python_tag() {
  "$1" -I -c 'import sys, sysconfig as s; print("cp%d%d" % sys.version_info[:2] + ("t" if s.get_config_var("Py_GIL_DISABLED") else ""))'
}

# Returns 1 if the packages can't be had; the caller knows whether it can do without.
setup_venv() {
  local group=$1 stamp wanted
  export VENV=$ROOT/build/venv-$TAG
  wanted=$(cat "$ROOT"/tools/requirements-{numpy,"$group"}.txt; echo "$PYTHON"; "$PYTHON" -V)
  stamp=$VENV/.isthmus-$group
  [[ ! -f $stamp || $(<"$stamp") != "$wanted" ]] || return 0
  mkdir -p "$ROOT/build"
  (
    take_lock "$VENV.lock" "build/venv-$TAG"
    if [[ ! -f $VENV/.isthmus-python || $(<"$VENV/.isthmus-python") != "$PYTHON $("$PYTHON" -V)" ]]; then
      "$PYTHON" -c 'import ensurepip' 2>/dev/null ||
        need_packages "the virtual environment" "python3.$(tr -cd 0-9 <<<"${TAG#cp3}")-venv" || exit 1
      rm -rf "$VENV"
      "$PYTHON" -m venv "$VENV" || exit 1
      echo "$PYTHON $("$PYTHON" -V)" >"$VENV/.isthmus-python"
    fi
    say "installing Python packages for $group into build/venv-$TAG, about 30 s ..."
    "$VENV/bin/python" -m pip -q --disable-pip-version-check install --retries 1 --timeout 30 \
      --only-binary :all: -r "$ROOT/tools/requirements-$group.txt" >"$VENV/pip.log" 2>&1 ||
      { tail -n 2 "$VENV/pip.log" >&2; exit 1; }
    echo "$wanted" >"$stamp"
  )
}

# setup_tools build|test|bench: compilers and build tools, and what the C tests or benchmarks need as well.
setup_tools() {
  local -a packages=(gcc libc6-dev make cmake ninja-build bzip2)
  case $1 in
    test) packages+=(g++ libcriterion-dev pkg-config) ;;
    bench) packages+=(g++ libbenchmark-dev) ;;
  esac
  # One list of everything that is missing is kinder than one after the other.
  # shellcheck disable=SC2207 # one word each
  all_installed "${packages[@]}" || packages+=($("$ROOT/tools/python.sh" --packages))
  need_packages "building" "${packages[@]}" || exit 1
  "$ROOT/tools/jemalloc.sh" >/dev/null || exit 1
}

setup_build() { build_in "$ROOT/build/$1-$TAG" "$1" "-DISTHMUS_PYTHON=$PYTHON" "$(numpy_headers)" "${@:2}"; }
setup_c_build() { build_in "$ROOT/build/$1-c" "$1" "${@:2}"; }

# The argument that says where numpy's headers are: the virtual environment's, or else the Python's own. Without them isthmus has no
# numpy_allocator().
numpy_headers() {
  local python found=
  for python in "$ROOT/build/venv-$TAG/bin/python" "$PYTHON"; do
    if found=$("$python" -c 'import numpy; print(numpy.get_include())' 2>/dev/null); then break; fi
  done
  echo "-DISTHMUS_NUMPY_INCLUDE=$found"
}

# build_in FOLDER PRESET ARGUMENT...: quiet, unless it takes long or fails.
build_in() {
  export BUILD=$1
  local preset=$2 log=$BUILD/build.log
  local -a fresh=()
  shift 2
  mkdir -p "$BUILD"
  [[ -f $BUILD/CMakeCache.txt ]] || say "building ${BUILD#"$ROOT"/}, about 30 s ..."
  (
    take_lock "$BUILD.lock" "${BUILD#"$ROOT"/}"
    # Other arguments than last time, another Python above all: nothing CMake found then counts.
    [[ -f $BUILD/.isthmus-args && $(<"$BUILD/.isthmus-args") == "$*" ]] || fresh=(--fresh)
    cd "$ROOT"
    if cmake --preset "$preset" -B "$BUILD" "${fresh[@]}" "$@" >"$log" 2>&1 && cmake --build "$BUILD" >>"$log" 2>&1; then
      echo "$*" >"$BUILD/.isthmus-args"
    else
      grep -E -A 12 'FAILED|error:|CMake Error' "$log" | head -n 60 >&2 || tail -n 40 "$log" >&2
      die "building ${BUILD#"$ROOT"/} failed; all of it: ${log#"$ROOT"/}"
    fi
  ) || exit 1
}

# Just the importable package: the tests are built with it only where they were asked for before.
setup_package() {
  local tests=OFF
  setup_tools build
  setup_python
  if grep -qs '^ISTHMUS_BUILD_TESTS:.*=ON' "$ROOT/build/dev-$TAG/CMakeCache.txt"; then tests=ON; fi
  setup_build dev "-DISTHMUS_BUILD_TESTS=$tests"
}

# The venv's Python, or the bare one where there could be no venv.
venv_python() { if [[ -x $VENV/bin/python ]]; then echo "$VENV/bin/python"; else echo "$PYTHON"; fi; }

# pyarrow, pandas and polars, where there are wheels of them for this Python: their tests skip themselves elsewhere.
want_consumers() { setup_venv consumers 2>/dev/null || say "no pyarrow, pandas and polars for $TAG: their tests are skipped"; }

# Tests that need numpy skip themselves where it is missing; without pytest there is nothing to run.
require_pytest() {
  setup_venv test && return
  "$(venv_python)" -c 'import pytest, pytest_timeout, hypothesis' 2>/dev/null ||
    die "pytest, pytest-timeout and hypothesis are needed for ./run test, and no package index is reachable"
}
