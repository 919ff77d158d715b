#!/usr/bin/env bash
# python.sh VERSION: print the path of a CPython of that version (3.10), found on PATH, among
# pyenv's, or among uv's. Says nothing and fails where there is none.
set -euo pipefail
version=$1
candidates=("$(command -v "python$version" || true)")
if command -v pyenv >/dev/null; then candidates+=("$(pyenv root)/versions/$version".*/bin/python); fi
if command -v uv >/dev/null; then
  candidates+=("$(uv python find --no-python-downloads "$version" 2>/dev/null || true)")
fi
# A name on PATH may be only pyenv's or another manager's stand-in, so each is asked.
ask='import sys; print("{}.{}".format(*sys.version_info)); import ensurepip, venv'
for candidate in "${candidates[@]}"; do
  if [ -x "$candidate" ] && [ "$("$candidate" -c "$ask" 2>/dev/null)" = "$version" ]; then
    echo "$candidate"
    exit
  fi
done
exit 1
