#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The main job once with sanlock's own time-outs, N = 10 and W = 60, instead of the tests' 2 and 10.

Only with LUNAR_TEST_LONG=1: it takes some seven minutes, most of them waiting for sanlock's arithmetic. Happy path: the
pool comes up, a volume is written and read on another node, the coordinator is killed, a node loses its power and its
volume goes elsewhere when it is proved dead. The times are printed and held against the formulas of timeouts.c.
"""

import time

from harness import LONG, Cluster, Skip, expect, fatal, run_main, wait_for

N, W = 10, 60
FAIL, DEAD = 8 * N, 8 * N + W

c = Cluster("e2e-slow", build="build/dev", io_timeout=N, watchdog_timeout=W)


def pool_comes_up():
    c.format()
    start = time.monotonic()
    for n in (1, 2, 3):
        c.start_agent(n)
    for n in (1, 2):
        c.start_coordinator(n)
    c.wait_joined((1, 2, 3), seconds=5 * N + 40)
    joined = time.monotonic() - start
    c.wait_leader(seconds=60)
    return f"three joined in {joined:.0f} s"


def a_volume_goes_from_node_to_node():
    c.ctl(3, "volume", "create", "vol", "--size", "128MiB")
    device = c.ctl(1, "volume", "attach", "vol", "--node", "node1")["device"]
    c.x(1, f"mkfs.ext4 -q {device} && mkdir -p /mnt && mount {device} /mnt && echo kept >/mnt/f && umount /mnt")
    c.ctl(1, "volume", "detach", "vol")
    device = c.ctl(3, "volume", "attach", "vol", "--node", "node3")["device"]
    text = c.x(3, f"mkdir -p /mnt && mount {device} /mnt && cat /mnt/f && umount /mnt").stdout
    expect(text.strip() == "kept", text)


def a_killed_coordinator_is_replaced():
    node, term = c.leader()
    start = time.monotonic()
    c.x(node, "pkill -9 -x lunar-coordinat")
    wait_for("another coordinator", lambda: c.leader()[1] > term, 60)
    seconds = time.monotonic() - start
    c.start_coordinator(node)
    return f"{seconds:.1f} s"


def volume_moves(node):
    """Refused, which is Failed, while node3 has it; its death takes its grants away."""
    return c.ctl(node, "volume", "attach", "vol", timeout=60)


def a_dead_nodes_volume_goes_elsewhere_on_proof():
    node, _ = c.wait_leader(ask=1)
    other = 2 if node == 1 else 1
    c.vm("cut", 3)
    start = time.monotonic()

    def state():
        rows = c.ctl(node, "node", "list")["nodes"]
        return [n["state"] for n in rows if n["name"] == "node3"][0]

    wait_for("node3 to be proved dead", lambda: state() in ("DEAD", "FREE"), DEAD + 6 * N)
    dead = time.monotonic() - start
    expect(dead >= DEAD - 2 * N - 1, f"DEAD after {dead:.0f} s, before {DEAD} s")
    device = wait_for("the volume on another node", lambda: volume_moves(other), 60)["device"]
    moved = time.monotonic() - start
    text = c.x(other, f"mkdir -p /mnt && mount {device} /mnt && cat /mnt/f && umount /mnt").stdout
    expect(text.strip() == "kept", text)
    return f"DEAD after {dead:.0f} s (8N + W = {DEAD}), attached elsewhere {moved - dead:.1f} s later"


TESTS = [pool_comes_up, a_volume_goes_from_node_to_node, a_killed_coordinator_is_replaced,
         a_dead_nodes_volume_goes_elsewhere_on_proof]

if __name__ == "__main__":
    if not LONG:
        fatal(Skip("takes seven minutes: LUNAR_TEST_LONG=1"))
    run_main(c, TESTS)
