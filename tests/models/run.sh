#!/usr/bin/env bash
# Runs the models of this folder and compares with what is recorded: the litmus tests (verdict and race flag stand in each file), and
# every Promela model in every configuration and broken variant of its head:
#
#   sound NAME STATES FLAGS...      0 errors, exhaustive, with so many states; FLAGS are for spin
#   larger NAME STATES FLAGS...     the same, with --full
#   broken NAME ASSERTION FLAGS...  -DBROKEN_NAME; the assertion that catches it contains ASSERTION
#   pan OPTIONS...                  for all of the file's checkers: -D... to the compiler, the others to the checker (as -m depth)
#
#   tests/models/run.sh            all, two to three minutes on two idle cores
#   tests/models/run.sh --full     larger configurations as well: 4 GB
#
# One line each: result, name, verdict or number of states, seconds. Last line: "N passed, N failed, N skipped"; exit 1 if any failed.
# A tool that isn't there counts as one skipped.
#
#   HERD7      command for herd7 (default: herd7); may be several words, as for a herd7 in another root
#   HERD7_DIR  if that command sees another root directory: which. The tests are copied there for the time of the run
#   SPIN, CC   (default: spin, cc)
#   MODELS_JOBS  checks at once (default: the number of cores, at most 4)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -r -a herd7 <<<"${HERD7:-herd7}"
read -r -a spin <<<"${SPIN:-spin}"
read -r -a cc <<<"${CC:-cc}"
full=0
case ${1:-} in
  '') ;;
  --full) full=1 ;;
  *) echo "usage: $0 [--full]" >&2; exit 2 ;;
esac
jobs=${MODELS_JOBS:-$(nproc 2>/dev/null || echo 2)}
((jobs <= 4)) || jobs=4

# The counts were taken with this version; another may merge steps differently, so there they are shown and not compared.
counted_with="Spin Version 6.5.2"

# configurations KIND MODEL: those at the head of MODEL.pml, each with the model's name in front.
configurations() { sed -n "s/^ \* *$1  */$2 /p" "$here/$2.pml"; }

tmp=$(mktemp -d "${TMPDIR:-/tmp}/isthmus-models.XXXXXX")
copies=
running=()
clean() {
  local pid
  for pid in "${running[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$tmp" ${copies:+"$copies"}
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
: >"$tmp/results"

# result KIND NAME TEXT: one line, at once.
result() {
  printf '%-7s %-46s %s\n' "$1" "$2" "$3"
  echo "$1" >>"$tmp/results"
}

have() { command -v "$1" >/dev/null 2>&1; }

# ---- litmus tests

litmus() {
  local file name expected block observed race seconds files=("$here"/litmus/*.litmus)
  if [[ -n ${HERD7_DIR:-} ]]; then
    copies=$(mktemp -d "$HERD7_DIR/tmp/isthmus-models.XXXXXX")
    cp "${files[@]}" "$copies"
    files=("$copies"/*.litmus)
    files=("${files[@]/#"$HERD7_DIR"/}")
  fi
  "${herd7[@]}" -c11 -model rc11.cat "${files[@]}" >"$tmp/herd7.out" 2>"$tmp/herd7.err" </dev/null || true
  cat "$tmp/herd7.err"
  for file in "$here"/litmus/*.litmus; do
    name=$(basename "$file" .litmus)
    expected=$(sed -n 's/^(\* Expect: \(.*\)\.$/\1/p' "$file")
    block=$(awk -v n="$name" '$1 == "Test" { p = $2 == n } p' "$tmp/herd7.out")
    observed=$(awk '$1 == "Observation" { print $3 }' <<<"$block")
    seconds=$(awk '$1 == "Time" { print $3 }' <<<"$block")
    race="no race"
    [[ $block != *"Flag *undef*"* ]] || race="race"
    if [[ -n $observed && "$observed, $race" == "$expected" ]]; then
      result passed "litmus/$name" "$observed, $race  $seconds s"
    else
      result failed "litmus/$name" "${observed:-no verdict}, $race; expected $expected"
    fi
  done
}

# ---- the models

# pan DIRECTORY MODEL LEVEL FLAGS...: makes and runs a checker; its output is in DIRECTORY/out.
pan() {
  local dir=$1 model=$2 level=$3 option for_cc=() for_pan=(-m20000)
  shift 3
  for option in $(configurations pan "$model" | cut -s -d ' ' -f 2-); do
    if [[ $option == -D* ]]; then for_cc+=("$option"); else for_pan+=("$option"); fi
  done
  mkdir "$dir" && cd "$dir" && cp "$here/$model.pml" . || return # nothing is written elsewhere
  "${spin[@]}" -a "$@" "$model.pml" >out 2>&1 &&
    "${cc[@]}" "$level" -w -DSAFETY -DCOLLAPSE -DMEMLIM=6000 "${for_cc[@]}" -o pan pan.c >>out 2>&1 &&
    ./pan "${for_pan[@]}" >>out 2>&1
}

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", b - a }'; }
errors() { sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$1/out"; }
states() { sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' "$1/out"; }

sound() { # sound MODEL NAME STATES FLAGS...
  local model=$1 name=$2 expected=$3 dir=$tmp/$1.$2 start=$EPOCHREALTIME count note=
  shift 3
  (pan "$dir" "$model" -O2 "$@") || true
  count=$(states "$dir")
  if grep -q -e "max search depth too small" -e "out of memory" -e "aborting" "$dir/out" || [[ $(errors "$dir") != 0 ]]; then
    result failed "$model $name" "$(grep -E 'pan:|rror' "$dir/out" | head -n 3 | tr '\n' ' ')"
    return
  fi
  if [[ $count != "$expected" ]]; then
    if [[ $version == "$counted_with"* ]]; then
      result failed "$model $name" "0 errors, but $count states, recorded $expected"
      return
    fi
    note="  (recorded $expected with $counted_with)"
  fi
  result passed "$model $name" "0 errors, $count states  $(seconds_since "$start")$note"
  rm -rf "$dir"
}

broken() { # broken MODEL VARIANT ASSERTION FLAGS...
  local model=$1 name=$2 assertion=$3 dir=$tmp/$1.$2 start=$EPOCHREALTIME
  shift 3
  (pan "$dir" "$model" -O0 "-DBROKEN_$name" "$@") || true
  if [[ $(errors "$dir") == [1-9]* ]] && grep "assertion violated" "$dir/out" | grep -qF -e "$assertion"; then
    result passed "$model BROKEN_$name" "caught after $(states "$dir") states  $(seconds_since "$start")"
  else
    result failed "$model BROKEN_$name" "not caught by $assertion: $(grep -E 'pan:|rror' "$dir/out" | head -n 3 | tr '\n' ' ')"
  fi
  rm -rf "$dir"
}

# start FUNCTION LINE: in the background, at most $jobs at once.
start() {
  local line=() pid alive=()
  read -r -a line <<<"$2"
  "$1" "${line[@]}" &
  running+=($!)
  while ((${#running[@]} >= jobs)); do
    wait -n || true
    alive=()
    for pid in "${running[@]}"; do ! kill -0 "$pid" 2>/dev/null || alive+=("$pid"); done
    running=("${alive[@]}")
  done
}

begin=$EPOCHREALTIME
if have "${herd7[0]}"; then litmus; else result skipped "litmus" "no ${herd7[0]} (package herdtools7, or set HERD7)"; fi
if ! have "${spin[0]}"; then
  result skipped "models" "no ${spin[0]} (package spin, or set SPIN)"
elif ! have "${cc[0]}"; then
  result skipped "models" "no ${cc[0]} (a C compiler, or set CC)"
else
  version=$("${spin[@]}" -V)
  for file in "$here"/*.pml; do
    model=$(basename "$file" .pml)
    mapfile -t sound < <(configurations sound "$model")
    mapfile -t broken < <(configurations broken "$model")
    mapfile -t larger < <(configurations larger "$model")
    ((${#sound[@]} && ${#broken[@]})) || result failed "$model" "no configurations at its head"
    for line in "${sound[@]}"; do start sound "$line"; done
    for line in "${broken[@]}"; do start broken "$line"; done
    if ((full)); then for line in "${larger[@]}"; do start sound "$line"; done; fi
  done
  wait
  running=()
fi

count() { grep -c "^$1$" "$tmp/results" || true; }
echo "all in $(seconds_since "$begin")"
echo "$(count passed) passed, $(count failed) failed, $(count skipped) skipped"
[[ $(count failed) == 0 ]]
