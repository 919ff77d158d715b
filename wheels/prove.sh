#!/usr/bin/env bash
# prove.sh DIST PYTHON [PYTEST ARGUMENT...]: install the wheel of DIST that suits PYTHON as a user
# without a compiler or a network would, and run it: the README's first text, then the tests, of
# which none sees the checkout's package. Arguments replace the whole suite.
set -euo pipefail
cd "$(dirname "$0")/.."
dist=$(cd "$1" && pwd) python=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
largest=150 # megabytes, dependencies included

"$python" -m venv "$work/venv"
pip=("$work/venv/bin/python" -m pip --quiet)
# Everything from the index that the tests need goes into a folder first.
cp "$dist"/*.whl "$work"
"${pip[@]}" download --dest "$work" --find-links "$work" --only-binary=:all: "bitnet_cy[test-light]"
offline=("${pip[@]}" install --no-index --find-links "$work")

size() { du -sm "$work/venv" | cut -f 1; }
empty=$(size)
"${offline[@]}" bitnet_cy
cd "$work"
CC=/bin/false venv/bin/bitnet-cy generate -n 32 "Once upon a time"
venv/bin/bitnet-cy info
installed=$(($(size) - empty))
echo "installed with its dependencies: $installed MB"
[ "$installed" -le "$largest" ]

"${offline[@]}" "bitnet_cy[test-light]"
cd "$OLDPWD"
# The script and not `python -m pytest`, which would put the checkout on the import path.
"$work/venv/bin/pytest" -p no:cacheprovider \
  ${REPORTS:+--junitxml="$REPORTS/wheel-$("$python" -c "import sys; print(sys.hexversion)").xml"} "$@" | tee "$work/tests.log"
grep -q "^bitnet_cy: $work/venv/" "$work/tests.log"
