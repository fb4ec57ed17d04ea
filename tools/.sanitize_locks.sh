#!/usr/bin/env bash
# The tests under sanitizers, for .ci/run.
#
#   tools/sanitize.sh asan   AddressSanitizer and UBSan: C tests, Python tests; leaks by the plain programs
#   tools/sanitize.sh tsan   ThreadSanitizer: the plain programs
#
# ISTHMUS_SANITIZER=address|thread tells tests that limit memory or count time to hold back.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

export ISTHMUS_TEST_SECONDS=600
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
cd "$ROOT"

asan() {
  export ISTHMUS_SANITIZER=address
  local asan=abort_on_error=0:allocator_may_return_null=1:detect_stack_use_after_return=0
  setup_tools test
  setup_python
  require_pytest
  setup_build asan -DISTHMUS_BUILD_TESTS=ON
  results_begin asan
  # A leak reported inside a Criterion test does not fail it: the plain programs are the gate.
  ASAN_OPTIONS=$asan:detect_leaks=0 run_c_tests asan "$BUILD/tests/c" crit
  ASAN_OPTIONS=$asan:detect_leaks=1 run_c_tests asan "$BUILD/tests/c" plain
  # libstdc++ comes along because AddressSanitizer looks for its __cxa_throw when it starts.
  LD_PRELOAD=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so):$(gcc -print-file-name=libstdc++.so.6) \
    ASAN_OPTIONS=$asan:detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=$BUILD/python \
    run_pytest "asan-$TAG" "$VENV/bin/python" tests/python
  results_end
}

tsan() {
  export ISTHMUS_SANITIZER=thread TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
  setup_tools test
  setup_c_build tsan -DISTHMUS_BUILD_TESTS=ON
  # Its shadow memory doesn't fit a randomised address space of the newest kernels.
  if setarch "$(uname -m)" -R true 2>/dev/null; then UNDER=(setarch "$(uname -m)" -R); fi
  results_begin tsan
  for t in plain_lock plain_queue plain_wait; do echo $t; timeout 400 "${UNDER[@]}" "$BUILD/tests/c/$t" || echo FAILED $t $?; done
  results_end
}

case ${1:-} in
  asan | tsan) "$1" ;;
  *) die "usage: tools/sanitize.sh asan|tsan" ;;
esac
