# SPDX-License-Identifier: Apache-2.0
"""Thin volumes never run out under the writer (SAFETY 20): three nodes, one LUN, writers at full speed.

Every writer must end without an error and find what it wrote, whatever happens meanwhile: the coordinator is killed, or
stands still for 10 s, or the agent is dead, or ten volumes want space at once, or the pool is full. LUNAR_TEST_LONG=1 writes
20 GiB instead of 1.5, and leaves the agent dead for ten minutes instead of 20 s.
"""

import time

from growth_bed import GIB, MIB, Bed, Writer
from harness import LONG, expect, run_main, wait_for

c = Bed("e2e-growth", build="build/dev", lun_size="26G" if LONG else "8G")
DEV = "/dev/lunar/demo/"
MUCH = 20 * GIB if LONG else 1536 * MIB
SEED = 7
COORDINATOR = "lunar-coordinat"  # as pkill knows it: 15 characters


def leader():
    return c.leader(ask=3)[0]


def status():
    return c.ctl(3, "status")


def figures(result):
    return f"{result['bytes'] / MIB / result['seconds']:.0f} MiB/s, {result['stalls']} stalls, the longest {result['longest_stall_s']:.2f} s"


def clean():
    """verify finds nothing; it looks twice where something is under way."""
    c.ctl(3, "verify", timeout=180)


# --- tests ---

def pool_comes_up():
    c.pool_up()
    c.put_filler()


def a_writer_at_full_speed_fills_an_empty_volume_of_20_GiB():
    device = c.give("fast", 3)
    expect(c.allocated("fast") <= 128 * MIB, "it begins with more than 128 MiB")
    w = Writer(c, 3, device, MUCH, SEED)
    result = w.end(3000)
    expect(c.allocated("fast") >= MUCH, "more was written than is there")
    w.verify()
    c.take("fast", 3)
    clean()
    return figures(result)


def the_coordinator_is_killed_in_the_middle():
    device = c.give("killed", 3)
    w = Writer(c, 3, device, MUCH, SEED)
    wait_for("the first growth", lambda: c.allocated("killed", 3) > 128 * MIB, 60)
    was = leader()
    c.x(was, f"pkill -9 -x {COORDINATOR}")
    wait_for("the next leader", lambda: leader() != was, 60)
    result = w.end(3000)
    w.verify()
    c.start_coordinator(was)
    c.take("killed", 3)
    return figures(result)


def answers_come_10_s_late():
    """Both coordinators are stopped, for a standby would not wait so long; what runs past the end waits."""
    device = c.give("late", 3)
    w = Writer(c, 3, device, MUCH, SEED)
    wait_for("the first growth", lambda: c.allocated("late", 3) > 128 * MIB, 60)
    for _ in range(3):
        for n in (1, 2):
            c.x(n, f"pkill -STOP -x {COORDINATOR}")
        time.sleep(10)
        for n in (1, 2):
            c.x(n, f"pkill -CONT -x {COORDINATOR}")
        if not w.running():
            break
    result = w.end(3000)
    w.verify()
    c.wait_leader()
    c.take("late", 3)
    return figures(result)


def ten_volumes_grow_at_once():
    names = [f"many{i}" for i in range(10)]
    nodes = [i % 3 + 1 for i in range(10)]
    devices = [c.give(name, n) for name, n in zip(names, nodes)]
    writers = [Writer(c, n, d, 320 * MIB, i) for i, (n, d) in enumerate(zip(nodes, devices))]
    results = [w.end(900) for w in writers]
    for w in writers:
        w.verify()
    for name, n in zip(names, nodes):
        c.take(name, n)
    clean()
    return f"the longest stall {max(r['longest_stall_s'] for r in results):.2f} s"


def the_agent_is_dead_while_the_writer_comes_to_the_end():
    device = c.give("orphan", 3)
    c.x(3, "pkill -9 -x lunar-agent")
    w = Writer(c, 3, device, 512 * MIB, SEED)
    time.sleep(600 if LONG else 20)
    expect(w.running(), "512 MiB went into a layer of 128 MiB that nobody can have grown")
    c.start_agent(3)
    c.wait_joined((3,))
    result = w.end(300)
    w.verify()
    c.take("orphan", 3)
    return figures(result)


def in_a_full_pool_writers_wait_until_space_is_there():
    free = status()["vg_free"]
    fs = c.give("files", 2)
    c.x(2, f"mkfs.ext4 -q {fs} && mkdir -p /mnt/files && mount {fs} /mnt/files")
    raw = c.give("raw", 3)
    left = 192 * MIB
    c.ctl(1, "volume", "create", "filler", "--size", str(free - 256 * MIB - left), "--thick", timeout=3000)
    w = Writer(c, 3, raw, 384 * MIB, SEED)
    files = c.spawn(2, "head -c 300000000 /dev/urandom >/mnt/files/data && sync -f /mnt/files && sha256sum </mnt/files/data")
    s = wait_for("both writers to wait", lambda: status()["waiting"] == 2 and status(), 120)
    expect("wait for space" in s["condition"] and s["condition"] == s["space"], s["condition"])
    expect("the pool is full" in c.ctl(3, "volume", "show", "raw")["condition"], "the volume's condition does not say why")
    expect(c.x(3, "lunarctl status").stdout.startswith("*** 2 WRITERS WAIT FOR SPACE"), "status does not shout")
    log = c.x(leader(), "cat /run/coordinator.log").stdout
    expect("pool_condition" in log and "to=waiting" in log, "no event was raised")
    time.sleep(5)
    expect(w.running() and files.poll() is None, "a writer did not wait")
    c.ctl(1, "volume", "delete", "filler")
    result = w.end(300)
    w.verify()
    data = files.communicate(timeout=300)[0].split()[0]
    expect(files.returncode == 0, f"the files' writer failed: {data}")
    s = status()
    expect(s["waiting"] == 0 and "wait for space" not in s["condition"], s["condition"])
    c.x(2, f"umount /mnt/files && fsck.ext4 -fn {fs} && mount -r {fs} /mnt/files")
    expect(c.x(2, "sha256sum </mnt/files/data").stdout.split()[0] == data, "the file is another one")
    c.x(2, "umount /mnt/files")
    c.take("files", 2)
    c.take("raw", 3)
    expect(status()["vg_free"] == free, "not all space came back")
    clean()
    return figures(result)


def a_limit_of_overcommit_refuses_with_the_numbers():
    size = status()["vg_size"]
    c.ctl(3, "pool", "set", "--overcommit", "150%", "--warn", "90%")
    words = c.refused(3, "volume", "create", "huge", "--size", str(2 * size // MIB * MIB))
    expect("150%" in words and "pool set --overcommit" in words, words)
    c.x(leader(), f"pkill -9 -x {COORDINATOR}")
    s = c.wait_leader() and status()  # the next leader reads them from the VG's tags
    expect((s["overcommit_limit"], s["warn_percent"]) == (150, 90), f"{s}")
    c.ctl(3, "pool", "set", "--overcommit", "none", "--warn", "80%")
    c.ctl(3, "volume", "create", "huge", "--size", str(2 * size // MIB * MIB))
    c.ctl(3, "volume", "delete", "huge")


run_main(c, [pool_comes_up, a_writer_at_full_speed_fills_an_empty_volume_of_20_GiB, the_coordinator_is_killed_in_the_middle,
             answers_come_10_s_late, ten_volumes_grow_at_once, the_agent_is_dead_while_the_writer_comes_to_the_end,
             in_a_full_pool_writers_wait_until_space_is_there, a_limit_of_overcommit_refuses_with_the_numbers],
         always=(pool_comes_up,))
