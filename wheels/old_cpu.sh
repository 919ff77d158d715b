#!/usr/bin/env bash
# old_cpu.sh [PYTEST ARGUMENT...]: install the package and run its tests on qemu's Nehalem, a CPU of
# 2008 without AVX, where an instruction that the ABI's floor lacks ends the process.
# Needs Python 3.10 or newer, a C compiler, and qemu-user-static.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet ".[test-light]"
# qemu starts one program and not its children, so the interpreter itself is started by qemu,
# and tests that start Python again run on the real CPU.
old_cpu() { qemu-x86_64-static -cpu Nehalem-v1 "$work/venv/bin/python" "$@"; }
cd "$work"
old_cpu -m bitnet_cy info
old_cpu -m bitnet_cy generate -n 8 "Once upon a time"
old_cpu -m pytest -q -p no:cacheprovider "$root/tests" "$@"
