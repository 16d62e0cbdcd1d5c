# SPDX-License-Identifier: Apache-2.0
"""Runs in a node, for test_model.py: `qemu-img check` of every QCOW2 layer of a volume group, read from the LUN.

usage: layer_check.py VG

Happy path: the layers' segments are what LVM says, each is mapped read-only and checked; one JSON line {"layers", "leaked"}.
Leaked clusters are no damage: a killed daemon leaves them (docs/FAILURES.md, qsd_exited). Nobody may have a layer meanwhile.
Failure modes: a layer that is damaged, or whose bytes end behind its LV, is printed, and the exit status 1.
"""

import json
import subprocess
import sys


def report(vg, command, kind, *options):
    out = subprocess.run([command, "--foreign", "--units", "s", "--nosuffix", "--reportformat", "json", *options, vg],
                         check=True, capture_output=True, text=True).stdout
    return json.loads(out)["report"][0][kind]


def layers(vg):
    """{name: [(start, size, device, offset)]} in sectors."""
    extent = int(report(vg, "vgs", "vg", "-o", "vg_extent_size")[0]["vg_extent_size"])
    starts = {p["pv_name"]: int(p["pe_start"]) for p in report(vg, "vgs", "vg", "-o", "pv_name,pe_start")}
    found = {}
    for s in report(vg, "lvs", "seg", "--segments", "-o", "lv_name,lv_tags,seg_start,seg_size,devices"):
        tags = s["lv_tags"].split(",")
        if "lunar.k=thick" in tags or not any(tag.startswith("lunar.r=") for tag in tags):
            continue
        device, at = s["devices"].rstrip(")").split("(")
        found.setdefault(s["lv_name"], []).append(
            (int(s["seg_start"]), int(s["seg_size"]), device, starts[device] + int(at) * extent))
    return found


def check(name, segments):
    """Leaked clusters."""
    table = "".join(f"{start} {size} linear {device} {at}\n" for start, size, device, at in sorted(segments))
    subprocess.run(["dmsetup", "create", "check", "--readonly"], input=table, text=True, check=True)
    try:
        r = subprocess.run(["qemu-img", "check", "--output=json", "-f", "qcow2", "/dev/mapper/check"],
                           check=False, capture_output=True, text=True)
    finally:
        subprocess.run(["dmsetup", "remove", "--retry", "check"], check=True)
    said = json.loads(r.stdout) if r.stdout else {}
    size = sum(s[1] for s in segments) * 512
    if r.returncode not in (0, 3) or said.get("corruptions") or said.get("check-errors") or said["image-end-offset"] > size:
        print(f"layer {name} of {size} bytes: qemu-img exits with {r.returncode}: {r.stdout} {r.stderr}")
        sys.exit(1)
    return said.get("leaks", 0)


def main():
    found = layers(sys.argv[1])
    print(json.dumps({"layers": len(found), "leaked": sum(check(name, segments) for name, segments in sorted(found.items()))}))


main()
