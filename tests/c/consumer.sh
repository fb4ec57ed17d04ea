#!/usr/bin/env bash
# consumer.sh BUILD CMAKE CC SANITIZERS: installs BUILD into a temporary folder, and builds and runs consumer/ against it: by
# find_package, by pkg-config, and after the folder was moved, as packages and wheels are.
set -euo pipefail
build=$1 cmake=$2 cc=$3 sanitizers=${4-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ -n $sanitizers ]]; then
  echo "skipped: a library built with -fsanitize=$sanitizers isn't what is installed"
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$cmake" --install "$build" --prefix "$work/first" --component library >"$work/log" || { cat "$work/log"; exit 1; }
"$cmake" --install "$build" --prefix "$work/first" --component development >"$work/log" || { cat "$work/log"; exit 1; }
mv "$work/first" "$work/moved"

library=$(find "$work/moved" -name libisthmus.so)
[[ -f $library ]] || { echo "no libisthmus.so was installed"; exit 1; }
grep -rlF "$build" "$work/moved" --include='*.cmake' --include='*.pc' --include='*.h' && { echo "the files above name the build folder"; exit 1; }

if ! { "$cmake" -S "$here/consumer" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/moved" -DCMAKE_C_COMPILER="$cc" &&
  "$cmake" --build "$work/build"; } >"$work/log" 2>&1; then
  cat "$work/log"
  echo "find_package(isthmus) doesn't work"
  exit 1
fi
"$work/build/consumer"
libraries=$(ldd "$work/build/consumer") # whole: grep -q would end the pipe early
grep -q "$work/moved/.*libisthmus" <<<"$libraries" || { echo "it runs with another libisthmus"; exit 1; }

if ! command -v pkg-config >/dev/null; then
  echo "skipped: find_package works; there is no pkg-config"
  exit 77
fi
PKG_CONFIG_PATH=$(dirname "$(find "$work/moved" -name isthmus.pc)")
export PKG_CONFIG_PATH
[[ $(pkg-config --modversion isthmus) == 0.1.* ]]
read -ra flags < <(pkg-config --cflags --libs isthmus)
"$cc" -std=c11 "$here/consumer/main.c" -o "$work/by-pkg-config" "${flags[@]}"
LD_LIBRARY_PATH=$(dirname "$library") "$work/by-pkg-config"
