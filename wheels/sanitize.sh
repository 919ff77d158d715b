#!/usr/bin/env bash
# sanitize.sh [PYTEST ARGUMENT...]: the tests against an engine built with the address and
# undefined-behaviour sanitizers. Needs Python 3.10 or newer and gcc.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
BITNET_CY_SANITIZE=address,undefined "$work/venv/bin/python" -m pip install --quiet ".[test-light]"
cd "$work"
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  PYTHONMALLOC=malloc "$work/venv/bin/python" -m pytest -q -p no:cacheprovider --capture=sys \
  "$root/tests" "$@"
