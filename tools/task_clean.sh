#!/usr/bin/env bash
# ./run clean: removes build/. What is in the user's cache is shared by all checkouts and stays.
set -euo pipefail
# shellcheck source=tools/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

rm -rf "$ROOT/build" 2>/dev/null || as_root rm -rf "$ROOT/build" # the matrix builds as root
say "removed build/; $CACHE stays ($(du -sh "$CACHE" 2>/dev/null | cut -f 1))"
