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


def solid_reads(first, zero_to):
    """The volume: 16 MiB of 0x5a, then nothing but zeroes."""
    count = c.x(USER, f"python3 -c 'd = open(\"{c.solid}\", \"rb\").read({zero_to + 1}); m = 1 << 20; "
                      f"print(len(d), d[:{first}] == b\"Z\" * {first}, d[{first}:].count(0))'").stdout.split()
    expect(count == [str(zero_to), "True", str(zero_to - first)], f"length, kept, zeroes: {count}")


def a_thick_volume_gets_zeroes_attached_or_not():
    mib = 1 << 20
    c.ctl(USER, "volume", "create", "dirt", "--size", "256MiB", "--thick")  # what is new has been somebody's before
    dirt = c.ctl(USER, "volume", "attach", "dirt")["device"]
    c.x(USER, f"tr '\\0' '\\377' </dev/zero | dd of={dirt} bs=1M count=256 iflag=fullblock oflag=direct status=none")
    c.ctl(USER, "volume", "detach", "dirt")
    c.ctl(USER, "volume", "delete", "dirt")
    c.ctl(USER, "volume", "create", "solid", "--size", "16MiB", "--thick")
    c.solid = c.ctl(USER, "volume", "attach", "solid")["device"]
    c.x(USER, f"tr '\\0' Z </dev/zero | dd of={c.solid} bs=1M count=16 iflag=fullblock oflag=direct status=none")
    expect(c.ctl(USER, "volume", "expand", "solid", "90MiB")["size"] == 90 * mib, "the answer has another size")
    solid_reads(16 * mib, 90 * mib)
    c.ctl(USER, "volume", "detach", "solid")
    expect(c.ctl(2, "volume", "expand", "solid", "130MiB")["size"] == 130 * mib, "the answer has another size")
    c.ctl(USER, "volume", "attach", "solid")
    solid_reads(16 * mib, 130 * mib)


def a_thick_expansion_survives_its_coordinator():
    mib = 1 << 20
    leader, _ = c.wait_leader(ask=USER)
    request = c.spawn(USER, "lunarctl -o json volume expand solid 200MiB")
    c.x(leader, "pkill -9 -x lunar-coordinat")
    out, _ = request.communicate(timeout=120)
    expect(request.returncode == 0, f"the request: {out}")
    solid_reads(16 * mib, 200 * mib)
    shown = c.ctl(USER, "volume", "show", "solid")
    expect(shown["state"] == "ready", f"it still says {shown}")
    c.ctl(USER, "volume", "detach", "solid")
    c.start_coordinator(leader)


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
             a_thick_volume_gets_zeroes_attached_or_not, a_thick_expansion_survives_its_coordinator,
             a_detached_volume_is_larger_at_the_next_attach, a_coordinator_that_dies_meanwhile_does_not_lose_it,
             a_snapshot_before_and_after_has_its_own_size])
