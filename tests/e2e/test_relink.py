# SPDX-License-Identifier: Apache-2.0
"""Merged layers of a volume that stays attached: they leave its chain, and their space comes back, under a checksummed
writer (ring_writer.py).

The writer runs on node 2; nodes 1 and 3 are candidates for the coordinator, which merges in the background. Tests run in
order on one cluster; the volume is attached once and detached at the end.
"""

import json

from harness import TOP, Cluster, expect, run_main, wait_for

c = Cluster("e2e-relink", build="build/dev", lun_size="16G")
NODE = 2
CANDIDATES = (1, 3)
SETTLES_S = 240  # four merges and relinks, 10 s between looks, 30 s after one that failed


def acked():
    return int(c.x(NODE, "cat /run/acked 2>/dev/null || echo 0").stdout.strip() or 0)


def goes_on():
    before = acked()
    wait_for("the writer to go on", lambda: acked() > before + 5, 60)


def layers():
    return len(c.ctl(NODE, "volume", "tree")["layers"])


def maps():
    return int(c.x(NODE, "dmsetup ls | grep -c -- '-l[0-9]'", check=False).stdout)


def relinks():
    return sum(int(c.x(n, "grep -c 'op_done kind=relink.*code=OK' /run/coordinator.log", check=False).stdout.strip() or 0)
               for n in CANDIDATES)


def layers_without_a_name(*names):
    """Snapshots under the writer, of which all but the last go again."""
    for name in names:
        c.ctl(NODE, "snapshot", "create", "db", name)
        goes_on()
    for name in names[:-1]:
        c.ctl(NODE, "snapshot", "delete", name)


def expect_agreement():
    r = c.x(NODE, "lunarctl verify", check=False)
    expect(r.returncode == 0, r.stdout + r.stderr)


# --- tests ---

def pool_comes_up():
    c.pool_up(coordinators=CANDIDATES)
    c.vm("push", NODE, TOP / "tests/e2e/ring_writer.py", "/run/ring_writer.py")
    c.free = c.ctl(NODE, "status")["vg_free"]
    c.ctl(NODE, "volume", "create", "db", "--size", "1GiB")
    c.disk = c.ctl(NODE, "volume", "attach", "db")["device"]
    c.writer = c.spawn(NODE, f"python3 /run/ring_writer.py write {c.disk} /run/stop /run/acked")
    wait_for("the writer to write", acked, 20)


def merged_layers_leave_a_chain_that_stays_attached():
    layers_without_a_name("a", "b", "c", "d")
    expect(layers() > 2, "nothing is to be merged")
    wait_for("two layers", lambda: layers() == 2, SETTLES_S, pause=2)
    expect(maps() == 2, f"{maps()} layers are mapped")
    goes_on()
    expect_agreement()
    return f"{relinks()} relinks"


def a_coordinator_an_agent_and_a_daemon_that_die_meanwhile_change_nothing():
    layers_without_a_name("e", "f", "g", "h")
    before = relinks()
    leader, _ = c.leader(NODE)
    begun = "tail -n +$(cat /run/lines) /run/coordinator.log | grep -q relink_begins"
    c.x(leader, "wc -l </run/coordinator.log >/run/lines")
    wait_for("a relink", lambda: c.x(leader, begun, check=False).returncode == 0, SETTLES_S, pause=0.2)
    c.x(leader, "pkill -9 -x lunar-coordinat")
    c.x(NODE, "pkill -9 -x lunar-agent; pkill -9 -f '^qemu-storage'; true")
    c.start_agent(NODE)
    c.wait_joined([NODE])
    c.start_coordinator(leader)
    c.wait_leader(NODE)
    wait_for("three layers", lambda: layers() == 3, SETTLES_S, pause=2)
    wait_for("their maps alone", lambda: maps() == 3, 30)
    expect(relinks() > before, "nothing was relinked")
    goes_on()
    expect_agreement()


def every_answered_write_is_there_and_all_space_returns():
    c.x(NODE, "touch /run/stop")
    out, _ = c.writer.communicate(timeout=120)
    expect(c.writer.returncode == 0, f"the writer failed: {out}")
    result = json.loads(out.strip().splitlines()[-1])
    expect(result["errors"] == 0, f"the writer saw errors: {result}")
    for what in ("attached", "attached again"):
        r = c.x(NODE, f"python3 /run/ring_writer.py check {c.disk}", check=False)
        expect(r.returncode == 0, f"{what}: {(r.stderr + r.stdout).strip()}")
        expect(json.loads(r.stdout)["position"] == result["acked"], f"{what}: not all that was acknowledged is there")
        c.ctl(NODE, "volume", "detach", "db")
        if what == "attached":
            c.ctl(NODE, "volume", "attach", "db")
    c.ctl(NODE, "volume", "delete", "db")
    for name in ("d", "h"):
        c.ctl(NODE, "snapshot", "delete", name)
    wait_for("all space to be free again", lambda: c.ctl(NODE, "status")["vg_free"] == c.free, 60)
    return f"longest write {result['longest_s']} s"


run_main(c, [
    pool_comes_up,
    merged_layers_leave_a_chain_that_stays_attached,
    a_coordinator_an_agent_and_a_daemon_that_die_meanwhile_change_nothing,
    every_answered_write_is_there_and_all_space_returns,
])
