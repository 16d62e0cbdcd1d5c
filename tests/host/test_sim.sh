#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The simulator: a thousand seeds, two runs of a seed alike, every finding replayed, every mutant caught, a failure made small.
#
# With LUNAR_TEST_LONG=1 20,000 seeds more. Happy path: a line "ok N - ..." each, with totals, exit 0. Failure modes: "not ok",
# what the simulator said about it, and exit 1; 77 if it cannot be built.
set -uo pipefail
cd "$(dirname "$0")/../.."
n=0 failed=0
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

step() { # sentence, command...
  local what=$1 started=$SECONDS
  shift
  n=$((n + 1))
  if "$@" >"$out/log" 2>&1; then
    echo "ok $n - $what ($((SECONDS - started)) s)"
    grep -vE '^(ok|seed|tools/sim|\[)' "$out/log" | tail -n 12 | sed 's/^/  /'
  else
    failed=1
    echo "not ok $n - $what"
    tail -n 40 "$out/log" | sed 's/^/  | /'
  fi
}

replay_findings() {
  local file options rc=0
  for file in tests/sim/regressions/*; do
    [ "${file##*/}" = README ] && continue
    read -r -a options <"$file"
    build/dev/sim "${options[@]}" >"$out/one" 2>&1 || { rc=1; echo "$file:"; tail -n 20 "$out/one"; }
  done
  return $rc
}

# A mutant's failure ends as a smaller one, which fails by the same.
shrink() {
  local mutant=build/dev/mutants/sim-safety-03-copy-a-only small
  tests/sim/shrink.py --program $mutant --seed 1 >"$out/small" 2>"$out/steps" || { cat "$out/steps"; return 1; }
  small=$(sed -n '1s/^tools.sim //p' "$out/small")
  echo "from: $(build/dev/sim --seed 1 --print-choice)"
  echo "to:   $small"
  # shellcheck disable=SC2086
  if $mutant $small >"$out/one" 2>&1; then echo "the smaller case does not fail"; return 1; fi
  grep -q '^VIOLATION granted-before-told' "$out/one" && grep -q '^VIOLATION granted-before-told' "$out/small" &&
    python3 - "$small" "$(build/dev/sim --seed 1 --print-choice)" <<'PY'
import sys
small, first = ({k: int(v, 0) for k, v in zip(t.split()[::2], t.split()[1::2])} for t in sys.argv[1:])
assert small["--mask"] & ~first["--mask"] == 0 and small["--mask"].bit_count() < first["--mask"].bit_count(), "faults"
assert all(small[k] <= first[k] for k in first) and small["--requests"] < first["--requests"], "requests"
PY
}

tools/sim --print-choice >"$out/log" 2>&1 || { echo "SKIP: the simulator cannot be built"; tail "$out/log"; exit 77; }
step '1,000 seeds keep every invariant, and cover every fault and operation' \
  build/dev/sim --seeds 1000 --assert-coverage
step 'two runs of a seed leave one trace' build/dev/sim --check-determinism 20
step 'every finding stays mended' replay_findings
if [ -x build/asan-ubsan/sim ]; then
  step '60 seeds under ASan and UBSan' build/asan-ubsan/sim --seeds 60
fi
step 'every mutant is caught' tools/sim --mutants
step 'a failure is made small' shrink
if [ "${LUNAR_TEST_LONG:-0}" = 1 ]; then
  step '20,000 seeds more' build/dev/sim --from 1001 --seeds 20000
fi
exit $failed
