#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The benchmark of the disk RPC runs, says what it promises to say, and no figure is far from what it was when it was written.
#
# The bounds are generous, because machines that run tests are busy: a poll gap of a millisecond, a lost wake-up or a needless write
# break them, noise does not. Happy path: exit 0. Failure modes: exit 1 with the bound that does not hold; 77 without O_DIRECT.
set -euo pipefail
cd "$(dirname "$0")/../.."
json=$(mktemp)
trap 'rm -f "$json"' EXIT

holds() { # jq expression on the report
  jq -e "$1" "$json" >/dev/null || { echo "not so: $1"; cat "$json"; return 1; }
}

# Latency on a machine that others use, too, is judged by the best of three runs.
within_bounds() {
  holds '.hot_p50_us <= 4 * .floor_us' && holds '.hot_p99_us <= 200 * .floor_us' &&
    holds '.idle_hint_p50_us <= 10 * .floor_us' && holds '.idle_mean_us <= 700000' && holds '.requests_per_s >= 2000'
}

for try in 1 2 3; do
  rc=0
  tools/bench rpc -o json --seconds 4 >"$json" || rc=$?
  [ $rc = 0 ] || { echo "tools/bench rpc: exit $rc"; exit $rc; }
  holds '[.floor_us, .hot_p50_us, .hot_p99_us, .idle_hint_p50_us, .idle_mean_us, .requests_per_s] | all(. > 0)'
  holds '[.rows[] | select(.name == "busy") | [.payload, .in_flight, .hint]] | unique
         | length == 18 and ([.[][0]] | unique == [100, 4096, 65536]) and ([.[][1]] | unique == [1, 16, 256])'
  holds '.rows | all(.n > 0 and .p10_us <= .p50_us and .p50_us <= .p90_us and .p90_us <= .p99_us)'
  holds '.published | length > 0'
  within_bounds && exit 0
  echo "run $try of 3 is out of bounds"
done
exit 1
