#!/usr/bin/env bash
# Fuzzes the reader of structured clones with libFuzzer, AddressSanitizer and UBSan: tools/fuzz.sh [SECONDS]. Needs clang with its runtime; the C
# test plain_fuzz_clone does the same without, and less cleverly. What it finds lies in build/fuzz; the corpus in tests/c/corpus stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p build/fuzz/found
clang -std=c11 -g -O1 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude \
  tests/c/fuzz_clone.c shm/clone.c -o build/fuzz/clone
exec build/fuzz/clone -max_total_time="${1:-60}" -max_len=4096 -artifact_prefix=build/fuzz/ build/fuzz/found tests/c/corpus/clone
