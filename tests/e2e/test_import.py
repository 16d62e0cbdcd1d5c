# SPDX-License-Identifier: Apache-2.0
"""`lunarctl volume import` and `export` on two nodes: bytes in and out in several formats, what is refused, and both killed
or interrupted in the middle. Tests run in order on one cluster.
"""

import json

from harness import Cluster, Failed, expect, run_main, wait_for

c = Cluster("e2e-import", build="build/dev", nodes=2, lun_size="4G")
USER, OTHER = 2, 1
MIB = 1 << 20
SIZE = 160 * MIB  # more than a thin volume begins with
MAKE = f"""
import os
f = open('/run/disk.raw', 'wb')
f.truncate({SIZE})
for at in (0, 77 * {MIB} + 512, {SIZE} - 3 * {MIB}):  # the head, somewhere, and the very end
    f.seek(at)
    f.write(os.urandom(3 * {MIB}))
"""
# qemu-img as it is, but slow enough to be met at work.
SLOW = """mkdir -p /run/slow; cat >/run/slow/qemu-img <<'X'
#!/bin/bash
if [ "$1" = convert ]; then shift; exec /usr/bin/qemu-img convert -r 256K "$@"; fi
exec /usr/bin/qemu-img "$@"
X
chmod +x /run/slow/qemu-img"""


def transfer(*words):
    """lunarctl's lines of JSON: the percentages, then the result."""
    r = c.x(USER, f"lunarctl -o json volume {' '.join(words)}", check=False)
    if r.returncode:
        raise Failed(f"volume {words}: {(r.stderr or r.stdout).strip()}")
    lines = [json.loads(line) for line in r.stdout.splitlines()]
    return [line["percent"] for line in lines[:-1]], lines[-1]


def reads_as(name, file="/run/disk.raw"):
    device = c.ctl(USER, "volume", "attach", name)["device"]
    c.x(USER, f"cmp {file} {device}")
    c.ctl(USER, "volume", "detach", name)


def volumes():
    return sorted(v["name"] for v in c.ctl(USER, "volume", "list").get("volumes", []))


def state(name):
    return c.ctl(USER, "volume", "show", name)["state"]


def pool_comes_up():
    c.pool_up()
    c.x(USER, f"python3 -c \"{MAKE}\"; cd /run; {SLOW}")
    for kind, options in (("qcow2", "-c"), ("vmdk", "-o subformat=streamOptimized"), ("vpc", "-o force_size=on")):
        c.x(USER, f"cd /run && qemu-img convert -f raw -O {kind} {options} disk.raw disk.{kind}")


def images_become_volumes():
    for kind in ("raw", "qcow2", "vmdk"):
        percents, volume = transfer("import", f"/run/disk.{kind}", f"from-{kind}", "--format", kind)
        expect(volume["size"] == SIZE and volume["state"] == "ready", f"{kind}: {volume}")
        expect(percents and percents == sorted(percents) and percents[-1] == 100, f"{kind}: progress {percents}")
        expect(volume["allocated"] == 128 * MIB, f"{kind}: zeroes were written: {volume['allocated']} bytes")
        reads_as(f"from-{kind}")
    _, volume = transfer("import", "/run/disk.vpc", "solid", "--format", "vpc", "--thick")
    expect(volume["thick"] and volume["state"] == "ready", f"{volume}")
    reads_as("solid")
    words = c.refused(USER, "volume", "import", "/run/disk.raw", "from-raw", "--format", "raw")
    expect("exists" in words, words)
    reads_as("from-raw")
    c.ctl(USER, "volume", "delete", "from-vmdk")


def what_needs_other_files_or_lies_is_refused():
    c.x(USER, """cd /run && qemu-img create -q -f qcow2 -b /run/disk.qcow2 -F qcow2 over.qcow2 &&
        qemu-img create -q -f qcow2 -o data_file=/run/data.raw,data_file_raw=on apart.qcow2 4M &&
        qemu-img create -q -f vmdk -o subformat=monolithicFlat flat.vmdk 4M &&
        qemu-img create -q -f vmdk -b /run/disk.vmdk -F vmdk over.vmdk && cp disk.vpc over.vpc &&
        printf '\\4' | dd of=over.vpc bs=1 seek=63 conv=notrunc status=none""")
    before = volumes()
    for file, kind, words in (("over.qcow2", "qcow2", "backing file"), ("apart.qcow2", "qcow2", "another file"),
                              ("flat.vmdk", "vmdk", "flat.vmdk"), ("over.vmdk", "vmdk", "backing file"),
                              ("over.vpc", "vpc", "backing file"),
                              ("disk.raw", "qcow2", "not in qcow2"), ("disk.qcow2", "raw", "--force"),
                              ("disk.qcow2", "vmdk", "VMDK"), ("none", "raw", "none")):
        said = c.refused(USER, "volume", "import", f"/run/{file}", "bad", "--format", kind)
        expect(words in said, f"{file} as {kind}: {said}")
    expect(volumes() == before, "a refused import left a volume")


def slow(words):
    return c.spawn(USER, f"PATH=/run/slow:$PATH exec lunarctl -o json volume {words}")


def is_at_work():
    return c.x(USER, "pgrep -f 'qemu-img convert'", check=False).returncode == 0


def a_killed_import_is_told_from_a_whole_one_and_deleted():
    process = slow("import /run/disk.qcow2 half --format qcow2")
    wait_for("qemu-img", lambda: is_at_work() and state("half") == "importing", 60)
    for node, command in ((OTHER, ("attach", "half")), (USER, ("attach", "half"))):
        words = c.refused(node, "volume", *command)
        expect("being imported" in words, words)
    expect("imported" in c.refused(USER, "snapshot", "create", "half", "s"), "a snapshot of half a volume")
    expect("exists" in c.refused(USER, "volume", "create", "half", "--size", SIZE), "half a volume was taken for a new one")
    words = c.refused(USER, "volume", "import", "/run/disk.qcow2", "half", "--format", "qcow2")
    expect("exists" in words, words)
    c.x(USER, "pkill -9 -x lunarctl")
    process.communicate(timeout=60)
    wait_for("qemu-img to die with lunarctl", lambda: not is_at_work(), 20)
    expect(state("half") == "importing", "it says nothing of it")
    expect("being imported" in c.refused(OTHER, "volume", "attach", "half"), "half a volume is attached")
    c.ctl(OTHER, "volume", "detach", "half")
    expect("being imported" in c.refused(OTHER, "volume", "attach", "half"), "half a volume is attached")
    c.ctl(USER, "volume", "delete", "half")


def an_interrupted_import_leaves_nothing():
    process = slow("import /run/disk.qcow2 half --format qcow2")
    wait_for("qemu-img", lambda: is_at_work() and state("half") == "importing", 60)
    c.x(USER, "pkill -INT -x lunarctl")
    out, _ = process.communicate(timeout=60)
    expect(process.returncode == 1 and "interrupted" in out, f"{process.returncode}: {out}")
    expect("half" not in volumes(), "the half volume is there")


def volumes_and_snapshots_become_images():
    device = c.ctl(USER, "volume", "attach", "from-raw")["device"]
    c.ctl(USER, "snapshot", "create", "from-raw", "then")
    c.x(USER, f"""cp --sparse=always /run/disk.raw /run/now.raw
        head -c 1M /dev/urandom >/run/new && for f in /run/now.raw {device}; do
        dd if=/run/new of=$f bs=1M seek=100 conv=notrunc,fsync status=none; done""")
    before = volumes()
    for name, kind, options, same in (("from-raw", "qcow2", "-c", "now"), ("from-raw", "vmdk", "-c", "now"),
                                      ("then", "raw", "--snapshot", "disk"), ("solid", "vpc", "", "disk")):
        percents, result = transfer("export", name, "/run/out", "--format", kind, options)
        expect(percents[-1] == 100 and result["file"] == "/run/out", f"{name} as {kind}: {percents} {result}")
        c.x(USER, f"qemu-img compare -q -f {kind} -F raw /run/out /run/{same}.raw")
        expect("exists" in c.refused(USER, "volume", "export", name, "/run/out", "--format", kind), "a file was replaced")
        c.x(USER, "[ -z \"$(ls -d /run/out.partial* 2>/dev/null)\" ] && rm /run/out")
    expect(volumes() == before, "an export left a volume")
    c.ctl(USER, "volume", "detach", "from-raw")


def a_killed_export_leaves_what_says_so():
    process = slow("export from-qcow2 /run/out --format raw")
    wait_for("qemu-img", is_at_work, 60)
    c.x(USER, "pkill -9 -x lunarctl; ! [ -e /run/out ]")
    process.communicate(timeout=60)
    left = [v for v in volumes() if v.startswith("export-of-from-qcow2-")]
    expect(len(left) == 1, f"left: {volumes()}")
    wait_for("qemu-img to die with lunarctl", lambda: not is_at_work(), 20)
    c.x(USER, "[ $(ls -d /run/out.partial-* | wc -l) = 1 ] && rm -r /run/out.partial-*")
    c.ctl(USER, "volume", "detach", left[0])
    c.ctl(USER, "volume", "delete", left[0])
    process = slow("export from-qcow2 /run/out --format raw")
    wait_for("qemu-img", is_at_work, 60)
    c.x(USER, "pkill -TERM -x lunarctl")
    out, _ = process.communicate(timeout=60)
    expect(process.returncode == 1 and "interrupted" in out, f"{process.returncode}: {out}")
    expect(not [v for v in volumes() if v.startswith("export")], f"left: {volumes()}")
    c.x(USER, "[ -z \"$(ls -d /run/out.partial* 2>/dev/null)\" ]")


run_main(c, [pool_comes_up, images_become_volumes, what_needs_other_files_or_lies_is_refused,
             a_killed_import_is_told_from_a_whole_one_and_deleted, an_interrupted_import_leaves_nothing,
             volumes_and_snapshots_become_images, a_killed_export_leaves_what_says_so])
