#!/usr/bin/env bash
# Rules of this repository that no compiler and no linter knows. Prints what breaks them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

status=0
files() { git ls-files -co --exclude-standard -- "$@" | while read -r f; do [[ ! -f $f ]] || echo "$f"; done; }

# rule TEXT PATTERN PATHS...: no line of these files may match.
rule() {
  local text=$1 pattern=$2 hits
  shift 2
  hits=$(files "$@" | xargs -r -d '\n' grep -HInE -e "$pattern" -- | grep -v 'rule exception:' || true)
  [[ -n $hits ]] || return 0
  printf '%s\n%s\n\n' "$text" "$hits"
  status=1
}

rule "an atomic operation without its memory order (style: every one spells it)" \
  '\batomic_(load|store|exchange|compare_exchange_(strong|weak)|fetch_[a-z]+|flag_test_and_set|flag_clear) ?\(|\b__sync_[a-z]+' \
  '*.c' '*.h' '*.cc'
rule "a test that sleeps (wait for the thing itself; else say 'rule exception: why' on the line)" \
  '\b(time\.sleep|usleep|nanosleep|clock_nanosleep|thrd_sleep|asyncio\.sleep|sleep) ?\(' 'tests/*.c' 'tests/*.h' 'tests/*.py'
rule "work left to do (open an issue instead)" '\b(TODO|FIX''ME)\b' ':!tools/repo_rules.sh'
rule "a path of one machine" '(^|[^A-Za-z0-9_.$}/~-])/(root|home|work|Users)/' ':!tools/testing_root.sh'
rule "the host name of a package registry" '(deb|security|snapshot)\.debian\.or[g]|pyp[i]\.(org|python)|pythonhoste[d]\.org'

while read -r file; do
  lines=$(wc -l <"$file")
  ((lines <= 800)) || { echo "$file has $lines lines, more than 800"; status=1; }
done < <(files '*.c' '*.h' '*.cc' '*.py' '*.pyi' '*.sh')

exit "$status"
