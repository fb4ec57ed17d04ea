#!/usr/bin/env bash
# ./run docs: the documentation site in build/docs/html. Warnings are errors; every link inside the site leads somewhere.
set -euo pipefail
# shellcheck source=tools/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
# shellcheck source=tools/results.sh
. "$ROOT/tools/results.sh"

setup_tools build
setup_python
setup_venv docs ||
  die "./run docs needs Sphinx, MyST and furo ($(grep -vc '^-r' "$ROOT/tools/requirements-docs.txt") packages, tools/requirements-docs.txt)," \
    "and no package index is reachable; without them the pages are Markdown: README.md and docs/"
setup_package # the reference has the docstrings of the package that runs
export PYTHONPATH=$BUILD/python
cd "$ROOT"

# A fresh environment each time: a page that is gone must not stay, nor what it had.
build_site() {
  "$VENV/bin/python" -m sphinx --fresh-env --fail-on-warning --keep-going -q -b html -d build/docs/doctrees docs build/docs/html
}

results_begin docs
rm -rf build/docs/html
if build_site; then
  result passed "$(find build/docs/html -name '*.html' | wc -l)" pages
else
  result failed 1 "the site: a warning, see above"
fi
if [[ -d build/docs/html ]]; then
  if links=$("$VENV/bin/python" tools/check_links.py build/docs/html); then
    result passed "$links" links
  else
    result failed 1 "links: those above lead nowhere"
  fi
fi
say "the site is build/docs/html/index.html"
results_end
