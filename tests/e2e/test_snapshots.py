# SPDX-License-Identifier: Apache-2.0
"""Snapshots, clones and rollback on three nodes, under a checksummed writer (ring_writer.py) whose device tells of any
instant how far it had come.

The writer runs on node 3; nodes 1 and 2 are candidates for the coordinator, clones are read on node 2. Tests run in order on
one cluster; the last one deletes everything and compares the pool's space with what it was.
"""

import json

from harness import LONG, TOP, Cluster, Failed, expect, run_main, wait_for

c = Cluster("e2e-snap", build="build/dev", lun_size="64G" if LONG else "16G")
WRITER, READER = 3, 2
MANY = 200 if LONG else 20
KILL_POINTS_MAX = 80
KILL_STEP = 1 if LONG else 4
made = {}  # snapshot -> the least and the most that it may hold


class Writer:
    """ring_writer.py on a volume that is attached to WRITER."""

    def __init__(self, volume):
        self.device = c.ctl(WRITER, "volume", "attach", volume)["device"]
        c.x(WRITER, "rm -f /run/stop /run/acked")
        self.process = c.spawn(WRITER, f"python3 /run/ring_writer.py write {self.device} /run/stop /run/acked")
        wait_for("the writer to write", self.acked, 20)

    def acked(self):
        return int(c.x(WRITER, "cat /run/acked 2>/dev/null || echo 0").stdout.strip() or 0)

    def goes_on(self):
        before = self.acked()
        wait_for("the writer to go on", lambda: self.acked() > before + 5, 60)

    def stop(self):
        c.x(WRITER, "touch /run/stop")
        out, _ = self.process.communicate(timeout=120)
        expect(self.process.returncode == 0, f"the writer failed: {out}")
        result = json.loads(out.strip().splitlines()[-1])
        expect(result["errors"] == 0, f"the writer saw errors: {result}")
        return result


def position(volume, node=READER):
    """How far the writer had come in what the volume holds; attaches and detaches it."""
    device = c.ctl(node, "volume", "attach", volume)["device"]
    r = c.x(node, f"python3 /run/ring_writer.py check {device}", check=False)
    c.ctl(node, "volume", "detach", volume)
    expect(r.returncode == 0, f"{volume} is no instant: {(r.stderr + r.stdout).strip()}")
    return json.loads(r.stdout)["position"]


def position_of_snapshot(snapshot):
    c.ctl(READER, "volume", "create", "look", "--from-snapshot", snapshot)
    try:
        return position("look")
    finally:
        c.ctl(READER, "volume", "delete", "look")


def snapshot(writer, name, volume="db"):
    """Taken under the writer: it must hold all that was acknowledged before, and nothing that came after."""
    before = writer.acked()
    c.ctl(WRITER, "snapshot", "create", volume, name)
    made[name] = (before, writer.acked() + 1)


def expect_instant(name):
    least, most = made[name]
    at = position_of_snapshot(name)
    expect(least <= at <= most, f"{name} holds write {at}; {least} was acknowledged before it, {most} was not begun after it")
    return at


# --- tests ---

def pool_comes_up():
    c.pool_up()
    for n in (WRITER, READER):
        c.vm("push", n, TOP / "tests/e2e/ring_writer.py", "/run/ring_writer.py")
    c.free = c.ctl(WRITER, "status")["vg_free"]


def a_live_snapshot_is_one_instant_under_its_writer():
    c.ctl(WRITER, "volume", "create", "db", "--size", "1GiB")
    c.writer = Writer("db")
    for name in ("s0", "s1", "s2"):
        snapshot(c.writer, name)
        c.writer.goes_on()
    at = [expect_instant(name) for name in ("s0", "s1", "s2")]
    expect(at == sorted(at) and at[0] < at[2], f"{at}")
    return f"at writes {at}"


def a_clone_is_written_on_another_node_while_its_source_is():
    c.ctl(READER, "volume", "create", "copy", "--from-snapshot", "s1", "--size", "2GiB")
    at = position("copy")
    device = c.ctl(READER, "volume", "attach", "copy")["device"]
    expect(int(c.x(READER, f"blockdev --getsize64 $(readlink -f {device})").stdout) == 2 << 30, "its size")
    c.x(READER, f"dd if=/dev/zero of={device} bs=1M count=4 oflag=direct status=none")
    c.writer.goes_on()
    c.ctl(READER, "volume", "detach", "copy")
    expect(position("copy") == 0, "the clone does not hold what was written to it")
    expect(expect_instant("s1") == at, "the snapshot has changed under its clone")
    c.ctl(READER, "volume", "delete", "copy")


def a_clone_of_a_live_volume_is_one_instant():
    before = c.writer.acked()
    c.ctl(READER, "volume", "create", "copy", "--from-volume", "db")
    after = c.writer.acked() + 1
    at = position("copy")
    expect(before <= at <= after, f"{before} <= {at} <= {after}")
    expect(len(c.ctl(READER, "snapshot", "list")["snapshots"]) == 3, "it left a snapshot that nobody asked for")
    c.ctl(READER, "volume", "delete", "copy")


def many_snapshots_under_the_writer():
    for i in range(MANY):
        snapshot(c.writer, f"m{i:03}")
    for i in (0, MANY // 2, MANY - 1):
        expect_instant(f"m{i:03}")
    # The layer that the clone of the volume stood on is merged with the one above it.
    wait_for("a layer for each snapshot", lambda: len(c.ctl(WRITER, "volume", "tree")["layers"]) == MANY + 4, 60)
    v = c.ctl(WRITER, "volume", "show", "db")
    expect(v["layers"] == MANY + 4, f"{v['layers']} layers")
    listed = c.ctl(WRITER, "snapshot", "list", "db")["snapshots"]
    expect(len(listed) == MANY + 3 and all(s["state"] == "ready" for s in listed), f"{listed}")
    c.writer.goes_on()
    tree = c.ctl(WRITER, "volume", "tree")["layers"]
    leaf = [t for t in tree if t["volume"] == "db"][0]
    expect(leaf["attachments"][0]["node"] == f"node{WRITER}", f"{leaf}")
    expect(c.x(WRITER, "lunarctl volume tree -o dot").stdout.startswith("digraph"), "dot")
    result = c.writer.stop()
    c.ctl(WRITER, "volume", "detach", "db")
    expect(position("db", WRITER) == result["acked"], "not all that was acknowledged is there")
    return f"longest write {result['longest_s']} s"


def a_detached_snapshot_is_the_state_of_then():
    at = position("db", WRITER)
    c.ctl(WRITER, "snapshot", "create", "db", "still")
    made["still"] = (at, at)
    writer = Writer("db")
    writer.goes_on()
    expect_instant("still")
    writer.stop()
    c.ctl(WRITER, "volume", "detach", "db")


def a_rollback_brings_a_snapshots_state_and_keeps_the_others():
    then, now = position_of_snapshot("s1"), position("db", WRITER)
    c.ctl(WRITER, "volume", "attach", "db")
    expect("detach" in c.refused(WRITER, "volume", "rollback", "db", "s1"), "an attached volume was rolled back")
    c.ctl(WRITER, "volume", "detach", "db")
    c.ctl(WRITER, "volume", "rollback", "db", "s1")
    expect(position("db", WRITER) == then, f"not the state of s1, which is {then}; before it was {now}")
    for name in ("s0", "s2", "still"):
        expect_instant(name)
    c.ctl(WRITER, "volume", "rollback", "db", "still")
    expect(position("db", WRITER) == made["still"][0], "not the state of still")


def a_coordinator_killed_at_any_effect_of_a_live_snapshot_is_made_good():
    writer = Writer("db")
    walked = 0
    for n in range(1, KILL_POINTS_MAX, KILL_STEP):
        victim = c.hand_over(n)
        snapshot(writer, "k")
        survived = c.x(victim, "pgrep -x lunar-coordinat", check=False).returncode == 0
        expect_instant("k")
        c.ctl(WRITER, "snapshot", "delete", "k")
        walked += 1
        if survived:
            break
    else:
        raise Failed(f"more than {KILL_POINTS_MAX} effects")
    expect(walked > 5, f"only {walked} points: the test sees nothing")
    writer.goes_on()
    writer.stop()
    c.ctl(WRITER, "volume", "detach", "db")
    return f"{walked} points"


def everything_agrees():
    r = c.x(WRITER, "lunarctl verify", check=False)
    expect(r.returncode == 0, r.stdout + r.stderr)


def chain_of(volume):
    tree = {t["lv_name"]: t for t in c.ctl(WRITER, "volume", "tree")["layers"]}
    chain = [next(t for t in tree.values() if t["volume"] == volume)]
    while chain[-1]["parent"]:
        chain.append(tree[chain[-1]["parent"]])
    return chain


def deleted_snapshots_are_merged_under_their_writer():
    """The layers of three deleted snapshots go into one another, and that of the snapshot above them follows; it and the
    volume show what they showed."""
    c.ctl(WRITER, "volume", "create", "pile", "--size", "1GiB")
    writer = Writer("pile")
    for i in range(4):
        snapshot(writer, f"g{i}", "pile")
        writer.goes_on()
    expect(len(chain_of("pile")) == 5, f"{chain_of('pile')}")
    for i in range(3):
        c.ctl(WRITER, "snapshot", "delete", f"g{i}")
    bottom = chain_of("pile")[-1]["lv_name"]
    wait_for("one layer of four", lambda: len(chain_of("pile")) == 2, 120)
    snap = chain_of("pile")[1]
    expect((snap["role"], snap["snapshot"], snap["lv_name"]) == ("snapshot", "g3", bottom), f"{chain_of('pile')}")
    everything_agrees()
    expect_instant("g3")
    writer.goes_on()
    result = writer.stop()
    c.ctl(WRITER, "volume", "detach", "pile")
    wait_for("the merged layers to go", lambda: all(t["state"] != "merged" for t in c.ctl(WRITER, "volume", "tree")["layers"]), 20)
    expect(position("pile", WRITER) == result["acked"], "not all that was acknowledged is there")
    expect_instant("g3")
    c.ctl(WRITER, "snapshot", "delete", "g3")
    c.ctl(WRITER, "volume", "delete", "pile")
    return f"longest write {result['longest_s']} s"


def snapshots_go_in_any_order_and_the_space_returns_exactly():
    names = [s["name"] for s in c.ctl(WRITER, "snapshot", "list")["snapshots"]]
    names.remove("s0")
    for name in names[1::2]:
        c.ctl(WRITER, "snapshot", "delete", name)
    expect_instant("s0")
    c.ctl(READER, "volume", "create", "heir", "--from-snapshot", "s0")
    c.ctl(WRITER, "volume", "delete", "db")
    for name in reversed(names[::2]):
        c.ctl(WRITER, "snapshot", "delete", name)
    least, most = made["s0"]
    expect(least <= position("heir") <= most, "the clone has changed when its volume went")
    c.ctl(WRITER, "snapshot", "delete", "s0")
    expect(least <= position("heir") <= most, "the clone has changed when its snapshot went")
    c.ctl(READER, "volume", "delete", "heir")
    wait_for("all space to be free again", lambda: c.ctl(WRITER, "status")["vg_free"] == c.free, 20)
    expect(not c.ctl(WRITER, "volume", "tree")["layers"], "layers are left")


run_main(c, [
    pool_comes_up,
    a_live_snapshot_is_one_instant_under_its_writer,
    a_clone_is_written_on_another_node_while_its_source_is,
    a_clone_of_a_live_volume_is_one_instant,
    many_snapshots_under_the_writer,
    a_detached_snapshot_is_the_state_of_then,
    a_rollback_brings_a_snapshots_state_and_keeps_the_others,
    a_coordinator_killed_at_any_effect_of_a_live_snapshot_is_made_good,
    everything_agrees,
    deleted_snapshots_are_merged_under_their_writer,
    snapshots_go_in_any_order_and_the_space_returns_exactly,
])
