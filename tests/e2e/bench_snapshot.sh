#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bench_snapshot.sh: tools/bench snapshot. Starts a virtual machine, has snapshot_bench.py measure there, and prints.
# Happy path: JSON or a table on standard output. Failure modes: 77 without a test bed; 1 if the measurement fails, with its words.
set -euo pipefail
cd "$(dirname "$0")/../.."
json=0 snapshots=100
while [ $# -gt 0 ]; do
  case $1 in
    -o) [ "${2:-}" = json ] || { echo "-o json" >&2; exit 2; }; json=1; shift 2 ;;
    --snapshots) snapshots=$2; shift 2 ;;
    --long) snapshots=200; shift ;;
    *) echo "bench snapshot: $1? tools/bench --help" >&2; exit 2 ;;
  esac
done
{
  [ -f build/release/CMakeCache.txt ] || cmake --preset release
  cmake --build --preset release --target stack_driver
} >&2
export LUNAR_CLUSTER=bench$$
vm=tools/vmcluster
trap '"$vm" down >&2' EXIT
rc=0; "$vm" up --nodes 1 --lun-size 8G --no-sanlock >&2 || rc=$?
[ $rc = 0 ] || exit $rc
"$vm" push node1 build/release/stack_driver /usr/local/bin/stack_driver >&2
"$vm" push node1 manifests/udev/10-lunar-dm.rules /etc/udev/rules.d/10-lunar-dm.rules >&2
"$vm" push node1 tests/e2e/snapshot_bench.py /run/snapshot_bench.py >&2
out=$("$vm" exec node1 --timeout 3000 -- python3 /run/snapshot_bench.py "$snapshots")
if [ $json = 1 ]; then echo "$out"; exit; fi
python3 - "$out" <<'TABLE'
import json, sys
r = json.loads(sys.argv[1])
print("%(snapshots)d snapshots under a writer of 4 KiB blocks: it stands still %(pause_p50_ms)s ms (median), %(pause_max_ms)s ms "
      "(longest); without one %(calm_gap_p50_ms)s and %(calm_gap_max_ms)s ms" % r)
print("of the ten before each depth (median): " + ", ".join("%s ms at %s" % (ms, d) for d, ms in r["pause_p50_ms_at"].items()))
print("of it the daemon's switch: %(switch_p50_ms)s ms (median), %(switch_max_ms)s ms (longest); a daemon of the whole chain is back "
      "after %(restart_s)s s" % r)
print("%-12s %10s %22s %22s" % ("", "snapshots", "first 4 KiB writes/s", "64 KiB rewrites MiB/s"))
for name in ("lunar", "lvm_thin", "lvm_classic"):
    if not r[name]:
        print("%-12s not in this kernel" % name)
    for depth, row in (r[name] or {}).items():
        print("%-12s %10s %22s %22s" % (name, depth, row["first_4k_per_s"], row["rewrite_64k_mib_per_s"]))
TABLE
