#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The references as web pages: of the C API from the header (Doxygen), of Python from docstrings (pdoc).
#
#   tools/make-reference.sh [FOLDER]    default $BUILD/reference
set -euo pipefail
. "$(dirname "$0")/common.sh"
cd "$root"

to=${1:-${BUILD:-.build}/reference}
mkdir -p "$to"
have doxygen || fail 'no doxygen (Debian: doxygen)'
python=.venv/bin/python
"$python" -c 'import pdoc' || fail 'no pdoc in .venv: run tools/setup.sh demo'

{ cat docs/reference/Doxyfile; say "OUTPUT_DIRECTORY = $to"; say 'HTML_OUTPUT = c'; say "PROJECT_NUMBER = $version"; } | doxygen -
PYTHONPATH=bindings/python "$python" -W ignore -m pdoc --no-show-source --template-directory docs/reference/pdoc \
    --output-directory "$to/python" mest
say "$to/c/index.html" "$to/python/mest.html" | tr ' ' '\n'
