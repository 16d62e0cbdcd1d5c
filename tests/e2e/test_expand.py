# SPDX-License-Identifier: Apache-2.0
"""`lunarctl volume expand` on three nodes: under a writer in a mounted file system, of a detached volume, and over the death
of the coordinator at the moment of the request. Tests run in order on one cluster.
"""

import json

from harness import TOP, Cluster, expect, run_main, wait_for

c = Cluster("e2e-expand", build="build/dev", lun_size="8G")
USER = 3
GIB = 1 << 30


def device_size(node=USER):
    return int(c.x(node, f"blockdev --getsize64 {c.device_path}").stdout)


def writes():
    return c.spawn(USER, "rm -f /run/stop; python3 /run/writer.py /mnt/data /run/stop")


def ends_well(writer):
    c.x(USER, "touch /run/stop")
    out, _ = writer.communicate(timeout=120)
    result = json.loads(out.strip().splitlines()[-1])
    expect(result["errors"] == 0 and result["wrong"] == 0 and result["records"] > 0, f"the writer saw {result}")
    return result


def pool_comes_up():
    c.pool_up()
    c.vm("push", USER, TOP / "tests/e2e/writer.py", "/run/writer.py")


def a_mounted_volume_is_expanded_under_its_writer():
    c.ctl(USER, "volume", "create", "db", "--size", "1GiB")
    c.device_path = c.ctl(USER, "volume", "attach", "db")["device"]
    c.x(USER, f"mkfs.ext4 -qF {c.device_path} && mount {c.device_path} /mnt")
    writer = writes()
    for gib in (2, 3):
        expect(c.ctl(USER, "volume", "expand", "db", f"{gib}GiB")["size"] == gib * GIB, "the answer has another size")
        expect(device_size() == gib * GIB, f"the device has {device_size()} bytes")
        c.x(USER, f"resize2fs {c.device_path}")
    mib = int(c.x(USER, "df -m --output=size /mnt | tail -n 1").stdout)
    expect(mib > 2600, f"the file system has {mib} MiB")
    r = ends_well(writer)
    c.ctl(USER, "volume", "expand", "db", "3GiB")  # the same again
    return f"longest write {r['longest_s']} s, file system of {mib} MiB"


def it_is_never_made_smaller():
    expect("smaller" in c.refused(USER, "volume", "expand", "db", "2GiB"), "no word about it")
    c.ctl(USER, "volume", "create", "solid", "--size", "8MiB", "--thick")
    expect("thick" in c.refused(USER, "volume", "expand", "solid", "16MiB"), "no word about it")


def a_detached_volume_is_larger_at_the_next_attach():
    c.x(USER, "umount /mnt")
    c.ctl(USER, "volume", "detach", "db")
    c.ctl(USER, "volume", "expand", "db", "4GiB")
    c.device_path = c.ctl(2, "volume", "attach", "db", "--node", "node3")["device"]
    expect(device_size() == 4 * GIB, f"the device has {device_size()} bytes")
    c.x(USER, f"e2fsck -fn {c.device_path} && mount {c.device_path} /mnt && resize2fs {c.device_path}")


def a_coordinator_that_dies_meanwhile_does_not_lose_it():
    leader, _ = c.wait_leader(ask=USER)
    other = 3 - leader
    writer = writes()
    request = c.spawn(USER, "lunarctl -o json volume expand db 5GiB")
    c.x(leader, "pkill -9 -x lunar-coordinat")
    out, _ = request.communicate(timeout=120)
    expect(request.returncode == 0, f"the request: {out}")
    wait_for("the other coordinator", lambda: c.leader(ask=USER)[0] == other, 60)
    expect(device_size() == 5 * GIB, f"the device has {device_size()} bytes")
    ends_well(writer)
    c.start_coordinator(leader)


def a_snapshot_before_and_after_has_its_own_size():
    c.ctl(USER, "snapshot", "create", "db", "small")
    c.ctl(USER, "volume", "expand", "db", "6GiB")
    c.ctl(USER, "snapshot", "create", "db", "large")
    expect(device_size() == 6 * GIB, f"the device has {device_size()} bytes")
    for name, size in (("small", 5), ("large", 6)):
        expect(c.ctl(USER, "volume", "create", f"of-{name}", "--from-snapshot", name)["size"] == size * GIB, f"{name}: size")
        c.ctl(USER, "volume", "attach", f"of-{name}")
        c.ctl(USER, "volume", "detach", f"of-{name}")
    c.x(USER, f"umount /mnt && e2fsck -fn {c.device_path}")
    c.ctl(USER, "volume", "detach", "db")


run_main(c, [pool_comes_up, a_mounted_volume_is_expanded_under_its_writer, it_is_never_made_smaller,
             a_detached_volume_is_larger_at_the_next_attach, a_coordinator_that_dies_meanwhile_does_not_lose_it,
             a_snapshot_before_and_after_has_its_own_size])
