#!/usr/bin/env bash
# exports.sh LIBRARY NM: the shared library shows the names of shm/libisthmus.map and of the public headers, and no other; it needs
# nothing but the C library, has its soname, and is never unloaded. And each error that a header names has a text.
set -euo pipefail
library=$1 nm=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The version's own name is an absolute symbol (A).
"$nm" -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u >"$work/exported"
sed -n '/global:/,/local:/p' "$root/shm/libisthmus.map" | grep -oE '\bist_[a-z_]+' | sort -u >"$work/listed"
grep -hE '\bIST_API\b' "$root"/include/isthmus/*.h | grep -v '#' | grep -oE '\bist_[a-z_]+( ?\(|;)' | grep -oE '[a-z_]+' | sort -u >"$work/declared"

[[ $(wc -l <"$work/exported") -ge 30 ]] || { echo "only $(wc -l <"$work/exported") exported names were found"; exit 1; }
status=0
diff "$work/listed" "$work/exported" || { echo "the map (<) and the library (>) differ"; status=1; }
diff "$work/declared" "$work/listed" || { echo "the headers (<) and the map (>) differ"; status=1; }
if grep -E '^(ist_je_|isti_|je_|malloc|calloc|free)' "$work/exported"; then echo "the names above must not be seen"; status=1; fi

grep -ohE -e '-E[A-Z]{3,}\b' "$root"/include/isthmus/*.h | sort -u >"$work/errors"
grep -oE -e 'case -E[A-Z]+' "$root/shm/error.c" | sed 's/case //' | sort -u >"$work/texts"
[[ $(wc -l <"$work/errors") -ge 20 ]] || { echo "only $(wc -l <"$work/errors") errors were found"; exit 1; }
if comm -23 "$work/errors" "$work/texts" | grep .; then echo "ist_strerror has no text for the errors above"; status=1; fi

if command -v readelf >/dev/null; then
  readelf -d "$library" >"$work/dynamic"
  grep -q NODELETE "$work/dynamic" || { echo "the library isn't linked -z nodelete"; status=1; }
  grep -q 'SONAME.*libisthmus\.so\.0\]' "$work/dynamic" || { echo "its soname isn't libisthmus.so.0"; status=1; }
  if grep NEEDED "$work/dynamic" | grep -vE 'lib(c|m|pthread|asan|ubsan|tsan|clang_rt[^ ]*)\.so|ld-linux'; then
    echo "it needs the libraries above"
    status=1
  fi
fi
echo "$(wc -l <"$work/exported") exported names"
exit $status
