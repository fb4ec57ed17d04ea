#!/usr/bin/env bash
# The package as a user gets it, for .ci/run: a wheel, in an empty virtual environment, used from Python and from C.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

setup_python
setup_tools build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=("$work/venv/bin/python" -m pip -q --disable-pip-version-check)
consumer=$ROOT/tests/c/consumer allocator=$ROOT/tests/numpy/try_allocator.py

# Build requirements come from the package index: without one there is no wheel, and nothing to test.
index_reachable() {
  "${pip[@]}" download --retries 1 --timeout 30 --no-deps -d "$work/index" scikit-build-core >/dev/null 2>&1
}
wheel() { "${pip[@]}" wheel --no-deps -w "$work" "$ROOT"; }
install() { "${pip[@]}" install --no-index "$work"/isthmus-*.whl; }
without_numpy() { (cd "$work" && "$work/venv/bin/python" "$allocator" without); }
with_numpy() { "${pip[@]}" install --only-binary :all: -r "$ROOT/tools/requirements-numpy.txt"; }
under_allocator() { (cd "$work" && "$work/venv/bin/python" "$allocator" with); }
older_numpy() { "${pip[@]}" install --only-binary :all: "numpy==$1" && under_allocator; }
example() { (cd "$work" && "$work/venv/bin/python" "$ROOT/examples/share_array.py"); }
of_package() { (cd "$work" && "$work/venv/bin/python" -c "import isthmus; print(isthmus.$1())"); }
build_consumer() {
  cmake -G Ninja -S "$consumer" -B "$work/consumer" "-DCMAKE_PREFIX_PATH=$(of_package get_cmake_dir)" &&
    cmake --build "$work/consumer" && "$work/consumer/consumer"
}
own_flags() { # without CMake: the folders the package names
  gcc -std=c11 "$consumer/main.c" -o "$work/by-flags" "-I$(of_package get_include)" "-L$(of_package get_library_dir)" -listhmus &&
    LD_LIBRARY_PATH=$(of_package get_library_dir) "$work/by-flags"
}

results_begin package
"$PYTHON" -m venv "$work/venv"
if index_reachable; then
  attempt "pip wheel" wheel
  attempt "pip install of the wheel in an empty environment" install
  attempt "examples/share_array.py with it" example
  attempt "without numpy: numpy_allocator() says what is missing" without_numpy
  if with_numpy; then
    attempt "numpy_allocator() of the wheel" under_allocator
    case $TAG in # the first numpy for each: one module serves all
      cp312) attempt "the same with numpy 1.26" older_numpy 1.26.4 ;;
      cp313) attempt "the same with numpy 2.1" older_numpy 2.1.0 ;;
    esac
  else
    result skipped 1 "package: numpy_allocator() of the wheel (no numpy for $("$PYTHON" -V))"
  fi
  attempt "a C program by find_package(isthmus) of the wheel" build_consumer
  attempt "a C program by the package's folders" own_flags
else
  result skipped 1 "package: the package index is not reachable"
fi
results_end
