# shellcheck shell=bash
# Sourced by the tasks that test: runs test programs and counts what they say.
#
#   results_begin STAGE   what follows is counted for STAGE
#   result passed|failed|skipped COUNT NAME
#   results_end           prints "N passed, N failed, N skipped", fails if something failed
#
# build/results/STAGE then holds a line "passed failed skipped" and the names of what was skipped.
# It is written at the very end: a stage that dies on the way leaves none, and .ci/run sees that.

RESULTS=$ROOT/build/results
UNDER=(env) # what a C test program is run under

results_begin() {
  STAGE=$1
  mkdir -p "$RESULTS"
  rm -f "$RESULTS/$STAGE" "$RESULTS/$STAGE".*.{tap,xml,out}
  : >"$RESULTS/$STAGE.items"
}

result() {
  echo "$1 $2 $3" >>"$RESULTS/$STAGE.items"
  [[ $1 == passed ]] || echo "$1: $3"
}

results_end() {
  awk '{ n[$1] += $2 } END { print n["passed"] + 0, n["failed"] + 0, n["skipped"] + 0 }' \
    "$RESULTS/$STAGE.items" >"$RESULTS/.$STAGE"
  sed -n 's/^skipped [0-9]* //p' "$RESULTS/$STAGE.items" >>"$RESULTS/.$STAGE"
  mv "$RESULTS/.$STAGE" "$RESULTS/$STAGE"
  local passed failed skipped
  read -r passed failed skipped <"$RESULTS/$STAGE"
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0))
}

# attempt NAME COMMAND...: one test, passed if the command is.
attempt() { attempt_ok "$@" || true; }
attempt_ok() { # for a caller that has to know
  local name=$1
  shift
  if ("$@"); then result passed 1 "$name"; else result failed 1 "$name"; return 1; fi
}

# run_criterion LABEL PROGRAM: counted by its TAP report, because its exit code is 0 when it ran nothing.
run_criterion() {
  local name tap status=0 passed failed
  name="$1 $(basename "$2")"
  tap=$RESULTS/$STAGE.$1.$(basename "$2").tap
  timeout -k 10 "${ISTHMUS_TEST_SECONDS:-300}" "${UNDER[@]}" "$2" --tap="$tap" || status=$?
  touch "$tap"
  passed=$(grep '^ok - ' "$tap" | grep -cv ' # SKIP' || true)
  failed=$(grep -c '^not ok - ' "$tap" || true)
  result passed "$passed" "$name"
  sed -nE 's/^not ok - ([^ ]*).*/\1/p' "$tap" | while read -r test; do result failed 1 "$name $test"; done
  sed -nE 's/^ok - ([^ ]*) +# SKIP (.*)/\1: \2/p' "$tap" | while read -r test; do result skipped 1 "$name $test"; done
  if ((status != 0 && failed == 0)); then result failed 1 "$name (exit $status)"
  elif ((passed + failed == 0)); then result failed 1 "$name (ran no test)"; fi
}

# run_plain LABEL PROGRAM: one test; exit 77 is a skip, and the last line it printed says why.
run_plain() {
  local name status=0 out
  name="$1 $(basename "$2")"
  out=$RESULTS/$STAGE.$1.$(basename "$2").out
  timeout -k 10 "${ISTHMUS_TEST_SECONDS:-300}" "${UNDER[@]}" "$2" >"$out" 2>&1 || status=$?
  cat "$out"
  case $status in
    0) result passed 1 "$name" ;;
    77) result skipped 1 "$name: $(tail -n 1 "$out")" ;;
    *) result failed 1 "$name (exit $status)" ;;
  esac
}

# run_c_tests LABEL FOLDER KIND...: every program of these kinds (crit, plain) there; none is a failure.
run_c_tests() {
  local label=$1 folder=$2 kind program found=0
  shift 2
  for kind; do
    for program in "$folder/${kind}"_*; do
      [[ -f $program && -x $program ]] || continue
      found=1
      echo "--- $label $(basename "$program")"
      case $kind in
        crit) run_criterion "$label" "$program" ;;
        plain) run_plain "$label" "$program" ;;
      esac
    done
  done
  ((found)) || result failed 1 "$label: no C test program in ${folder#"$ROOT"/}"
}

# run_pytest LABEL PYTHON ARGUMENT...: counted by its JUnit report; none, or one without a test, is a failure.
run_pytest() {
  local label=$1 python=$2 status=0 xml
  shift 2
  xml=$RESULTS/$STAGE.$label.xml
  rm -f "$xml"
  "$python" -m pytest -q -rs --timeout "${ISTHMUS_TEST_SECONDS:-300}" -p no:cacheprovider --junitxml "$xml" "$@" ||
    status=$?
  while read -r kind count name; do result "$kind" "$count" "$name"; done < <(
    "$python" "$ROOT/tools/junit_counts.py" "$label" "$status" "$xml")
}

# run_models: litmus tests and Promela models, if their tools are here; see tests/models/README.md.
run_models() {
  local script=$ROOT/tests/models/run.sh out=$RESULTS/$STAGE.models.out status=0 last
  [[ -f $script ]] || { result failed 1 "models: no tests/models/run.sh"; return; }
  HERD7=${HERD7:-} SPIN=${SPIN:-} bash "$script" ${ISTHMUS_FULL:+--full} >"$out" 2>&1 || status=$?
  cat "$out"
  last=$(tail -n 1 "$out")
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    result passed "${BASH_REMATCH[1]}" models
    if ((BASH_REMATCH[2])); then result failed "${BASH_REMATCH[2]}" "models"
    elif ((status)); then result failed 1 "models (exit $status)"; fi
    if ((BASH_REMATCH[3])); then result skipped "${BASH_REMATCH[3]}" "models: a tool is missing"; fi
  else
    result failed 1 "models: no count on the last line (exit $status)"
  fi
}
