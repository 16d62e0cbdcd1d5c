# SPDX-License-Identifier: Apache-2.0
"""Snapshots of several volumes on several nodes at one instant, and of a mounted file system, on three nodes.

A writer (order_writer.py) writes each number to a, then to b, both on node 1, then to c on node 2, so that of any instant
a >= b >= c >= a - 1 holds; clones of the snapshots are read on node 3. Failure modes, each of which leaves all of a group
or none, and nobody waiting beyond the deadline (SAFETY 21): the coordinator is killed, an agent is killed, a volume hangs,
each at a moment at which one node stands still.
"""

import json
import time

from harness import LONG, TOP, Cluster, expect, long_only, run_main, wait_for

c = Cluster("e2e-group", build="build/dev", lun_size="8G", net_cut=False)
NODES = {"a": 1, "b": 1, "c": 2}
READER = 3
PORT = 7100
GROUPS = 6 if LONG else 2
HOLD_S = 5  # LEADER_HOLD_MS; the agent looks each second
device = {}


def names(group):
    return {v: f"{group}-{v}" for v in NODES}


def pairs(group):
    return [word for pair in names(group).items() for word in pair]


def take(group, node=READER):
    return c.ctl(node, "snapshot", "create", *pairs(group))


def held_by(snapshot):
    """The number that a clone of it shows."""
    c.ctl(READER, "volume", "create", "look", "--from-snapshot", snapshot)
    path = c.ctl(READER, "volume", "attach", "look")["device"]
    number = int(c.x(READER, f"python3 /run/order_writer.py look {path}").stdout)
    c.ctl(READER, "volume", "detach", "look")
    c.ctl(READER, "volume", "delete", "look")
    return number


def expect_instant(group):
    at = [held_by(s) for s in names(group).values()]
    expect(at[0] >= at[1] >= at[2] >= at[0] - 1, f"{group} is no instant: {at}")
    return at[2]


def acked():
    return int(c.x(1, "cat /run/acked 2>/dev/null || echo 0").stdout.strip() or 0)


def goes_on():
    before = acked()
    wait_for("the writer to go on", lambda: acked() > before + 3, 30)


def there(group):
    """How many of its snapshots there are; all must be ready, and of one group."""
    mine = [s for s in c.ctl(READER, "snapshot", "list")["snapshots"] if s["name"].startswith(f"{group}-")]
    expect(all(s["state"] == "ready" for s in mine), f"{mine}")
    expect(len({s["group"] for s in mine}) <= 1, f"{mine}")
    return len(mine)


def suspended(volume):
    return f"cat /sys/dev/block/$(stat -Lc %Hr:%Lr {device[volume]})/dm/suspended"


def begin_with_c_hanging(group):
    """Starts a group and returns when a stands still; it goes on doing so, for c has a write in flight that does not end."""
    c.x(2, "pkill -STOP -x qemu-storage-da")
    client = c.spawn(READER, f"lunarctl -o json snapshot create {' '.join(pairs(group))}")
    c.x(1, f"for i in $(seq 2000); do [ $({suspended('a')}) = 1 ] && exit 0; sleep 0.02; done; exit 1")
    return client, time.monotonic()


def expect_resumed(since):
    wait_for("a to go on", lambda: c.x(1, suspended("a")).stdout.strip() == "0", HOLD_S + 5, pause=0.05)
    took = time.monotonic() - since
    expect(took < HOLD_S + 3, f"a stood still for {took:.1f} s")
    return took


def expect_all_or_none(group, client):
    client.communicate(timeout=120)
    done = client.returncode == 0
    for n in (1, 2, 3):
        wait_for("an end of it", lambda n=n: c.ctl(n, "status"), 30)
    wait_for("all or none", lambda: there(group) == (3 if done else 0), 40)
    if done:
        expect_instant(group)
    goes_on()
    return "all" if done else "none"


# --- tests ---

def pool_comes_up_and_the_writer_writes():
    c.pool_up()
    for n in (1, 2, 3):
        c.vm("push", n, TOP / "tests/e2e/order_writer.py", "/run/order_writer.py")
    for v, n in NODES.items():
        c.ctl(n, "volume", "create", v, "--size", "1GiB")
        device[v] = c.ctl(n, "volume", "attach", v)["device"]
    c.server = c.spawn(2, f"exec python3 /run/order_writer.py serve {PORT} {device['c']}")
    wait_for("the server", lambda: c.x(2, f"ss -ltn 2>/dev/null | grep -q :{PORT} || grep -qi :{PORT:04X} /proc/net/tcp*",
                                       check=False).returncode == 0, 20)
    c.writer = c.spawn(1, f"python3 /run/order_writer.py write {device['a']} {device['b']} node2 {PORT} /run/stop /run/acked")
    wait_for("the writer to write", acked, 20)


def snapshots_taken_one_after_the_other_are_no_instant():
    """That the next test can fail."""
    long_only()
    for v, s in names("one").items():
        c.ctl(READER, "snapshot", "create", v, s)
    at = [held_by(s) for s in names("one").values()]
    expect(not at[0] >= at[1] >= at[2], f"the writer is too slow for this test: {at}")
    return f"{at}"


def a_group_is_of_one_instant_under_its_writer():
    least = []
    for i in range(GROUPS):
        least.append(acked())
        made = take(f"g{i}")["snapshots"]
        expect(len(made) == 3 and all(s["state"] == "ready" for s in made), f"{made}")
        goes_on()
    at = [expect_instant(f"g{i}") for i in range(GROUPS)]
    expect(all(a >= b for a, b in zip(at, least)) and at == sorted(at), f"{at}, acknowledged before {least}")
    waits = c.x(1, "grep -h group_switched /run/coordinator.log; true").stdout + \
        c.x(2, "grep -h group_switched /run/coordinator.log; true").stdout
    return f"at {at}, all stood still and switched within ms " + ",".join(w.split("ms=")[1] for w in waits.splitlines())


def a_mounted_file_system_is_frozen_and_thawed():
    c.ctl(2, "volume", "create", "fs", "--size", "512MiB")
    path = c.ctl(2, "volume", "attach", "fs")["device"]
    c.x(2, f"mkfs.ext4 -qF {path} && mkdir -p /mnt/fs && mount {path} /mnt/fs && echo there >/mnt/fs/unsynced")
    made = c.ctl(2, "snapshot", "create", "fs", "frozen", "--freeze")["snapshots"]
    expect(made[0]["state"] == "ready", f"{made}")
    c.x(2, "echo more >/mnt/fs/after && sync -f /mnt/fs/after", timeout=20)  # it is thawed
    c.ctl(2, "snapshot", "create", "fs", "plain")
    c.ctl(READER, "volume", "create", "look", "--from-snapshot", "frozen")
    path = c.ctl(READER, "volume", "attach", "look")["device"]
    features = c.x(READER, f"dumpe2fs -h {path} 2>/dev/null | grep -i features:").stdout
    expect("needs_recovery" not in features, f"its journal was not empty: {features}")
    c.x(READER, f"mkdir -p /mnt/look && mount -o ro,noload {path} /mnt/look && grep -q there /mnt/look/unsynced && "
                "test ! -e /mnt/look/after; rc=$?; umount /mnt/look; exit $rc")
    c.ctl(READER, "volume", "detach", "look")
    c.ctl(READER, "volume", "delete", "look")
    c.x(2, "umount /mnt/fs")
    c.ctl(2, "volume", "detach", "fs")


def a_volume_that_hangs_lets_the_others_go_on_in_time():
    client, since = begin_with_c_hanging("silent")
    took = expect_resumed(since)
    c.x(2, "pkill -CONT -x qemu-storage-da")
    return f"{took:.1f} s; {expect_all_or_none('silent', client)}"


def a_killed_coordinator_leaves_all_or_none_and_nobody_waiting():
    leader, _ = c.leader()
    client, since = begin_with_c_hanging("coord")
    c.x(leader, "pkill -9 -x lunar-coordinat")
    took = expect_resumed(since)
    c.x(2, "pkill -CONT -x qemu-storage-da")
    c.start_coordinator(leader)
    return f"{took:.1f} s; {expect_all_or_none('coord', client)}"


def a_killed_agent_leaves_all_or_none_and_nobody_waiting():
    client, since = begin_with_c_hanging("agent")
    c.x(1, "pkill -9 -x lunar-agent")
    c.x(2, "pkill -CONT -x qemu-storage-da")  # so that its suspension succeeds, and node 1's, of before, must not count
    c.start_agent(1)
    took = expect_resumed(since)
    c.wait_joined((1,))
    return f"{took:.1f} s; {expect_all_or_none('agent', client)}"


def nobody_saw_an_error_and_all_agrees():
    c.x(1, "touch /run/stop")
    out, _ = c.writer.communicate(timeout=60)
    result = json.loads(out.strip().splitlines()[-1])
    expect(result["errors"] == 0, out)
    c.x(2, "pkill -x python3; true")
    c.server.communicate(timeout=30)
    for v, n in NODES.items():
        expect(int(c.x(n, f"python3 /run/order_writer.py look {device[v]}").stdout) == result["acked"], f"{v} is behind")
    r = c.x(READER, "lunarctl verify", check=False)
    expect(r.returncode == 0, r.stdout + r.stderr)
    tags = c.x(1, "cat /run/coordinator.log", check=False).stdout
    expect("assert" not in tags.lower(), "a coordinator has failed an assertion")
    return f"longest write {result['longest_s']} s"


run_main(c, [
    pool_comes_up_and_the_writer_writes,
    snapshots_taken_one_after_the_other_are_no_instant,
    a_group_is_of_one_instant_under_its_writer,
    a_mounted_file_system_is_frozen_and_thawed,
    a_volume_that_hangs_lets_the_others_go_on_in_time,
    a_killed_coordinator_leaves_all_or_none_and_nobody_waiting,
    a_killed_agent_leaves_all_or_none_and_nobody_waiting,
    nobody_saw_an_error_and_all_agrees,
])
