#!/usr/bin/env bash
# headers.sh CC [PYTHON_INCLUDE]: each public header compiles alone, twice included, as C11 and as C++17, without a warning. python.h where
# Python's headers are.
# segment_inline.h is for C11 only, as it says: it uses C's atomics.
set -euo pipefail
cc=$1
python=${2:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
include=$here/../../include
cxx=$(command -v c++ || command -v g++ || command -v clang++ || true)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
warnings=(-Wall -Wextra -Wundef -Wshadow -Wconversion -pedantic -Werror)

count=0
for header in "$include"/isthmus/*.h; do
  name=isthmus/$(basename "$header")
  options=("${warnings[@]}")
  if [[ $name == isthmus/python.h ]]; then
    [[ -f $python/Python.h ]] || continue
    options+=(-isystem "$python")
  fi
  printf '#include <%s>\n#include <%s>\ntypedef int not_empty;\n' "$name" "$name" >"$work/one.c"
  "$cc" -std=c11 -Wstrict-prototypes "${options[@]}" -I"$include" -fsyntax-only "$work/one.c"
  count=$((count + 1))
  [[ -n $cxx && $name != isthmus/segment_inline.h ]] || continue
  cp "$work/one.c" "$work/one.cc"
  "$cxx" -std=c++17 "${options[@]}" -I"$include" -fsyntax-only "$work/one.cc"
  count=$((count + 1))
done
((count >= 5)) || { echo "only $count compilations"; exit 1; }
echo "$count compilations"
[[ -n $cxx ]] || { echo "skipped: they compile as C11; there is no C++ compiler"; exit 77; }
