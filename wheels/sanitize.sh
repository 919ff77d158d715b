#!/usr/bin/env bash
# sanitize.sh [PYTEST ARGUMENT...]: the tests against an engine built with the address and
# undefined-behaviour sanitizers. Needs Python 3.10 or newer and gcc. The comparisons with torch and
# llama.cpp are left out: their libraries do not run beside the sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
BITNET_CY_SANITIZE=address,undefined "$work/venv/bin/python" -m pip install --quiet ".[test-light]"
cd "$work"
# Python's own memory leaks at exit by design; a cache larger than any memory must be refused with
# an error, which the sanitizer would rather end the process for.
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
  PYTHONMALLOC=malloc "$work/venv/bin/python" -m pytest -q -p no:cacheprovider --capture=sys \
  "$root/tests" "$@"
