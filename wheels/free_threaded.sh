#!/usr/bin/env bash
# free_threaded.sh [DIST]: build the wheel of a free-threaded CPython from the sdist in DIST (default:
# make one) and run the tests that need only the engine, threads generating at once among them.
# Uses $PYTHON_FREE_THREADED, or python3.14t or python3.13t on PATH, or builds 3.13t from Debian 13's
# source, as root with apt, zlib1g-dev and libffi-dev. Needs CPython 3.11 or newer and a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dist=${1:-$work/dist}
mkdir -p "$dist"

python3 -m venv "$work/venv"
python=$work/venv/bin/python
if ! ls "$dist"/bitnet_cy-*.tar.gz >/dev/null 2>&1; then
  "$python" -m pip install --quiet build==1.6.1
  "$python" -m build --sdist --outdir "$dist" .
fi

# Debian's mirror as apt knows it, but the source of Debian 13.
debian_source() { # PACKAGE FOLDER
  local mirror
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Origin: Debian' |
    grep -v security | sort -u | head -n 1)
  mkdir -p "$2"/{lists/partial,archives/partial,source}
  echo "deb-src $mirror trixie main" >"$2/sources.list"
  local apt=(apt-get -qq -o Dir::Etc::sourcelist="$2/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State="$2" -o Dir::Cache="$2" -o APT::Sandbox::User=root)
  "${apt[@]}" update
  (cd "$2/source" && "${apt[@]}" source --download-only "$1")
}

free=${PYTHON_FREE_THREADED:-$(command -v python3.14t || command -v python3.13t || true)}
if [ -z "$free" ]; then
  debian_source python3.13 "$work/debian"
  mkdir "$work/cpython"
  tar -xf "$work"/debian/source/python3.13_*.orig.tar.xz -C "$work/cpython" --strip-components=1
  (
    cd "$work/cpython"
    ./configure --quiet --disable-gil --disable-test-modules --without-doc-strings \
      --without-ensurepip --prefix="$work/python" CFLAGS="-O1 -g0" >/dev/null
    make -s -j "$(nproc)" >"$work/make.log" 2>&1
    make -s install >"$work/make.log" 2>&1
  ) || { tail -n 20 "$work/make.log"; exit 1; }
  free=$work/python/bin/python3
fi
"$free" -VV

# What has wheels for this CPython, by the other pip: this one may have no TLS. tokenizers and
# safetensors have none for 3.13, which is why not every test runs.
version=$("$free" -c 'import sys; print("{}.{}".format(*sys.version_info))')
"$free" -m venv --without-pip "$work/free"
site=$("$work/free/bin/python" -c 'import site; print(site.getsitepackages()[0])')
fetch=("$python" -m pip install --quiet --target "$site" --only-binary=:all: --python-version
  "$version" --abi "cp${version/./}t" --abi none --platform manylinux_2_28_x86_64
  --platform manylinux_2_27_x86_64 --platform manylinux2014_x86_64)
"${fetch[@]}" numpy jinja2 tqdm sentencepiece pytest setuptools cython
"${fetch[@]}" --no-deps gguf
(
  mkdir "$work/sdist"
  tar -xzf "$dist"/bitnet_cy-*.tar.gz -C "$work/sdist" --strip-components=1
  cd "$work/sdist"
  "$work/free/bin/python" setup.py --quiet bdist_wheel --dist-dir "$work/wheel"
)
"$python" -m zipfile -e "$work"/wheel/*.whl "$site"

cd "$work"
"$work/free/bin/python" -c "import sys; assert not sys._is_gil_enabled()"
# No test may pass because a dependency switched the lock on: Python's warning of it is an error.
"$work/free/bin/python" -W "error:The global interpreter lock:RuntimeWarning" \
  -m pytest -p no:cacheprovider \
  ${REPORTS:+--junitxml="$REPORTS/free-threaded.xml"} \
  "$root"/tests/test_{free_threading,kernels,forward}.py
