#!/usr/bin/env bash
# old_cpu.sh [DIST]: install a wheel of DIST (default: build one) and run it on CPUs of 2006 and
# 2008 that qemu plays, where an instruction above the ABI's floor ends the process: a Core 2 has no
# SSE4, a Nehalem no AVX. Needs qemu-user-static, CPython 3.11, and 3.10 for the Core 2: newer ones
# have only a NumPy that itself needs SSE4.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dist=${1:-$work/dist}
[ $# -gt 0 ] || bash wheels/linux.sh "$dist"
dist=$(cd "$dist" && pwd)

# The kernels, and the whole of a step on each kind of model. Left out is what takes minutes: the
# same step in blocks of every size on any number of threads, and many sessions at once.
core=("$root"/tests/test_{kernels,forward,ternary}.py
  -k "not (blocks_and_threads or sessions_together_equal)")

install() { # VERSION [REQUIREMENT...]
  "$(bash wheels/python.sh "$1")" -m venv "$work/$1"
  "$work/$1/bin/python" -m pip install --quiet --find-links "$dist" --only-binary=:all: \
    "bitnet_cy[test-light]" "${@:2}"
}
# qemu starts one program and not its children, so the interpreter itself is started by qemu,
# and what a test starts runs on the real CPU.
on() { # CPU VERSION ARGUMENT...
  (cd "$work" && qemu-x86_64-static -cpu "$1" "$work/$2/bin/python" "${@:3}")
}

on_each() { # CPU VERSION
  echo "== CPython $2 on qemu's $1"
  on "$1" "$2" -m bitnet_cy info
  on "$1" "$2" "$root/wheels/kernels.py" scalar
  on "$1" "$2" -m bitnet_cy generate -n 8 "Once upon a time"
  on "$1" "$2" -m pytest -p no:cacheprovider \
    ${REPORTS:+--junitxml="$REPORTS/old-cpu-$1.xml"} "${core[@]}"
}
install 3.10 "numpy<2.3"
on_each Conroe-v1 3.10
install 3.11
on_each Nehalem-v1 3.11
