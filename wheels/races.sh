#!/usr/bin/env bash
# races.sh [PYTEST ARGUMENT...]: Python threads that share a network and a model, against an engine
# built with gcc's thread sanitizer. Built without OpenMP, because the sanitizer does not see how
# libgomp's threads wait for each other. Needs Python 3.10 or newer and gcc.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/cc" <<'END'
#!/bin/sh
for word; do [ "$word" = -fopenmp ] && exit 1; done
exec gcc "$@"
END
chmod +x "$work/cc"
python3 -m venv "$work/venv"
CC=$work/cc LDSHARED="gcc -shared" BITNET_CY_SANITIZE=thread \
  "$work/venv/bin/python" -m pip install --quiet ".[test-light]"
cd "$work"
tests=(test_forward.py::test_two_threads_share_a_network
  test_model.py::test_two_threads_generate_from_one_model_at_once
  test_model.py::test_threads_that_do_different_things_with_one_model_do_not_meet)
LD_PRELOAD="$(gcc -print-file-name=libtsan.so)" TSAN_OPTIONS=halt_on_error=1 \
  "$work/venv/bin/python" -m pytest -q -p no:cacheprovider --capture=sys \
  "${tests[@]/#/$root/tests/}" "$@"
