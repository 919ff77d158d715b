#!/usr/bin/env bash
# fuzz.sh [SECONDS [TARGET...]]: fuzz the installed package's readers, guided by coverage, SECONDS
# (default: 15) each. PYTHON is the absolute path of a Python that has the package (default:
# python3), of a version that atheris has a wheel for (3.11 to 3.13). An input that breaks something
# is left in FUZZ (default: a temporary folder) and named.
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

# Beside the environment that has the package, not in it.
"$python" -m pip install --quiet --no-deps --target "$work/site" atheris==3.0.0
export PYTHONPATH=$root/tests:$work/site
cd "$work"
if [ ${#targets[@]} = 0 ]; then
  read -ra targets <<<"$("$python" -c 'from fuzz import targets; print(*targets.TARGETS)')"
fi
found=${FUZZ:-$(mktemp -d)}
round=100 # seconds: the fuzzer's own memory grows until it would be taken for a finding
for target in "${targets[@]}"; do
  inputs=0
  for ((left = seconds; left > 0; left -= round)); do
    if ! TMPDIR=$memory "$python" -m fuzz.run "$target" "$found/$target" \
      "-max_total_time=$((left < round ? left : round))" ${SEED:+"-seed=$SEED"} >"$work/log" 2>&1
    then
      grep -v '^INFO: Instrumenting' "$work/log" | tail -n 60
      echo "fuzz.sh: $target: an input was found that breaks it; it is in $found" >&2
      exit 1
    fi
    inputs=$((inputs + $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")))
  done
  echo "$target: $inputs inputs"
done
[ -n "${FUZZ:-}" ] || rm -rf "$found"
