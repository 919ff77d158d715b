#!/usr/bin/env bash
# fuzz.sh [SECONDS [TARGET...]]: fuzz the installed package's readers, guided by coverage, SECONDS
# (default: 15) each. PYTHON names its Python, of a version that atheris has a wheel for (3.11 to
# 3.13). An input that breaks something is left in FUZZ (default: a temporary folder) and named.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
python=${PYTHON:-python3}
seconds=${1:-15}
targets=("${@:2}")
work=$(mktemp -d)
# A disk would be the slowest part: every input is written to a file.
memory=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
trap 'rm -rf "$work" "$memory"' EXIT

"$python" -m venv --system-site-packages "$work/venv"
"$work/venv/bin/python" -m pip install --quiet atheris==3.0.0
# The environment that PYTHON belongs to has the package; the new one only adds the fuzzer.
PYTHONPATH="$root/tests:$("$python" -c 'import site; print(site.getsitepackages()[0])')"
export PYTHONPATH
cd "$work"
if [ ${#targets[@]} = 0 ]; then
  read -ra targets <<<"$("$work/venv/bin/python" -c 'from fuzz import targets; print(*targets.TARGETS)')"
fi
found=${FUZZ:-$(mktemp -d)}
for target in "${targets[@]}"; do
  if ! TMPDIR=$memory "$work/venv/bin/python" -m fuzz.run "$target" "$found/$target" \
    "-max_total_time=$seconds" >"$work/log" 2>&1; then
    grep -v '^INFO: Instrumenting' "$work/log" | tail -n 60
    echo "fuzz.sh: $target: an input was found that breaks it; it is in $found" >&2
    exit 1
  fi
  echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log") inputs"
done
