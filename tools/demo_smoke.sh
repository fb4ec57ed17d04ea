#!/usr/bin/env bash
# Runs ./run demo as a user would and looks whether its figures are there and make sense, for .ci/run.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

is_png() { head -c 4 "$1" | LC_ALL=C grep -aq PNG; }
figure() { attempt "demo: $1" "$PYTHON" -c "import json, sys; d = json.load(open(sys.argv[1])); r = d['runs']; assert $2, d" "$json"; }

setup_python
results_begin demo
out=$RESULTS/demo.out json=$RESULTS/demo.json plot=$RESULTS/demo.png
rm -f "$out" "$json" "$plot"
attempt "demo: finishes" "$ROOT/run" demo --json "$json" --plot "$plot" >"$out"
cat "$out"
attempt "demo: its last line says ok" grep -q '^demo: ok' "$out"
figure "the three ways give the same measures" "d['equal'] and d['files'] > 100"
figure "the interpreters copy no array byte, the processes do" \
  "r['pool']['bytes_copied'] == 0 < r['processes']['bytes_copied']"
# The speed itself is measured by ./run bench; this only notices when the workers wait for each other.
figure "the workers are ahead of one interpreter" \
  "d['workers'] == 1 or r['alone']['total'] / r['pool']['total'] > 0.6 * min(d['workers'], 2)"
if grep -q 'No plot: matplotlib' "$out"; then result skipped 1 "demo: the plot (no matplotlib here)"
else attempt "demo: writes a plot" is_png "$plot"; fi
results_end
