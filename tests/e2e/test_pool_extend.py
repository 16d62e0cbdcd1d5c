# SPDX-License-Identifier: Apache-2.0
"""A pool grows: its LUN is made larger, and another LUN is added, with nodes that do not see it.

Each test is a sentence; they run in order on one cluster of three nodes with a second LUN.
"""

import json
import time

from harness import DEVICE, Cluster, Failed, expect, run_main, wait_for

MIB, GIB = 1 << 20, 1 << 30
SECOND = "/dev/vdc"
NODES = (1, 2, 3)

c = Cluster("e2e-extend", build="build/dev", lun_size="1G", second_lun="1G")


def status():
    return c.ctl(3, "status")


def fill(node, device, mib, seed):
    """A pattern that a shifted or foreign block does not have; its checksum."""
    c.x(node, f"openssl enc -aes-128-ctr -K {seed:032x} -iv 0 -in /dev/zero 2>/dev/null | head -c {mib}M | "
              f"dd of={device} bs=1M oflag=direct iflag=fullblock status=none", timeout=300)
    return checksum(node, device, mib)


def checksum(node, device, mib):
    return c.x(node, f"dd if={device} bs=1M count={mib} iflag=direct status=none | md5sum", timeout=300).stdout.split()[0]


def second_lun(node, there):
    """Takes the second LUN's disk away from a node's kernel, or gives it back."""
    word = "bind" if there else "unbind"
    c.x(node, f"d=$(cat /run/second 2>/dev/null || basename $(readlink -f /sys/block/vdc/device)); echo $d >/run/second; "
              f"echo $d >/sys/bus/virtio/drivers/virtio_blk/{word}")
    wait_for(f"node{node}'s {SECOND}", lambda: (c.x(node, f"test -b {SECOND}", check=False).returncode == 0) == there, 20)


def the_pool_is_on_one_lun():
    c.pool_up()
    expect(len(status()["pvs"]) == 1, f"{status()}")


def where_nothing_has_grown_nothing_is_done():
    before = status()
    after = c.ctl(2, "pool", "extend")
    expect((after["vg_size"], after["vg_seqno"]) == (before["vg_size"], before["vg_seqno"]), f"{after}")


def a_grown_lun_is_refused_until_every_node_sees_it():
    before = status()
    for n in (1, 2):
        c.vm("lun-grow", n, "1280M")
    leader, _ = c.leader()
    words = c.refused(1, "pool", "extend")
    expect("'node3'" in words and "rescan" in words and "'node2'" not in words, f"leader node{leader}: {words}")
    expect(status()["vg_seqno"] == before["vg_seqno"], "something was committed")
    c.vm("lun-grow", 3, "1280M")
    after = c.ctl(1, "pool", "extend")
    expect(after["vg_size"] == before["vg_size"] + 256 * MIB, f"{before['vg_size']} -> {after['vg_size']}")


def the_next_leader_takes_the_grown_lun():
    node, term = c.leader()
    c.x(node, "pkill -9 -x lunar-coordinat")
    wait_for("the next leader", lambda: c.leader()[1] > term, 30)
    c.start_coordinator(node)
    areas = json.loads(c.x(1, f"lunarctl -o json lun dump {DEVICE}").stdout)
    expect("damaged" not in json.dumps(areas["lvm"]), f"{areas['lvm']}")


def a_lun_that_carries_something_is_refused():
    c.x(1, f"mkfs.ext4 -q {SECOND}")
    words = c.refused(1, "pool", "extend", SECOND)
    expect("ext4" in words and "--force" in words, words)
    words = c.refused(1, "pool", "extend", DEVICE)
    expect("pool" in words or "in use" in words, words)


def a_node_that_does_not_see_the_new_lun_is_named():
    second_lun(3, False)
    before = status()
    words = c.refused(1, "pool", "extend", SECOND, "--force")
    expect("'node3'" in words and "'node2'" not in words, words)
    expect(status()["vg_seqno"] == before["vg_seqno"], "something was committed")


def it_is_added_once_all_see_it():
    second_lun(3, True)
    before = status()
    start = time.monotonic()
    after = c.ctl(1, "pool", "extend", SECOND)  # what the attempt before has made is taken
    took = time.monotonic() - start
    expect(len(after["pvs"]) == 2 and after["pvs"][1]["uuid"].startswith("LUNAR1-"), f"{after['pvs']}")
    expect(after["vg_seqno"] == before["vg_seqno"] + 1, "not one commit")
    words = c.refused(2, "pool", "extend", SECOND)
    expect("belongs to a lunar pool" in words or "in use" in words, words)
    return f"{took:.1f} s"


def volumes_lie_on_both_and_move_between_nodes():
    size = status()["vg_free"] - 600 * MIB
    c.ctl(1, "volume", "create", "big", "--size", size // MIB * MIB, "--thick", timeout=300)
    used = [pv["size"] - pv["free"] for pv in status()["pvs"]]
    expect(all(used), f"a LUN is not used: {used}")
    mib = size // MIB
    device = c.ctl(1, "volume", "attach", "big", "--node", "node1")["device"]
    first = fill(1, device, mib, 7)
    c.ctl(1, "volume", "detach", "big")
    device = c.ctl(2, "volume", "attach", "big", "--node", "node2")["device"]
    expect(checksum(2, device, mib) == first, "node2 reads something else")
    c.ctl(2, "volume", "detach", "big")
    return f"{mib} MiB, {[u // MIB for u in used]} MiB on the LUNs"


def thin_volumes_on_the_second_lun_work_too():
    c.ctl(1, "volume", "create", "thin", "--size", GIB)
    device = c.ctl(2, "volume", "attach", "thin", "--node", "node2")["device"]
    first = fill(2, device, 64, 9)
    c.ctl(2, "volume", "detach", "thin")
    device = c.ctl(3, "volume", "attach", "thin", "--node", "node3")["device"]
    expect(checksum(3, device, 64) == first, "node3 reads something else")


def an_agent_that_starts_again_adopts_what_lies_there():
    before = checksum(3, "/dev/lunar/demo/thin", 64)
    c.x(3, "pkill -x lunar-agent; while pgrep -x lunar-agent >/dev/null; do sleep 0.1; done")
    c.start_agent(3)
    c.wait_joined([3])
    expect(checksum(3, "/dev/lunar/demo/thin", 64) == before, "it reads something else")
    wait_for("verify", lambda: c.ctl(1, "verify")["clean"] is True, 30)


def a_node_without_the_lun_cannot_attach_and_says_why():
    c.ctl(3, "volume", "detach", "thin")
    second_lun(3, False)
    words = c.refused(3, "volume", "attach", "big", "--node", "node3")
    expect("LUNAR1-" in words and "node3" in words, words)
    second_lun(3, True)
    c.ctl(3, "volume", "attach", "big", "--node", "node3")
    c.ctl(3, "volume", "detach", "big")


def the_next_leader_finds_both():
    node, term = c.leader()
    c.x(node, "pkill -9 -x lunar-coordinat")
    wait_for("the next leader", lambda: c.leader()[1] > term, 30)
    c.start_coordinator(node)
    expect(len(status()["pvs"]) == 2, f"{status()}")
    c.ctl(1, "volume", "delete", "big")
    c.ctl(1, "volume", "delete", "thin")
    expect(wait_for("the space", lambda: status()["vg_free"] == status()["vg_size"], 30), "space is lost")


def a_coordinator_that_loses_the_lun_leaves_the_lead_to_one_that_has_it():
    node, term = c.leader()
    second_lun(node, False)
    try:
        c.ctl(3, "volume", "create", "elsewhere", "--size", 64 * MIB)
    except Failed:
        pass  # whoever leads now is asked again
    wait_for("a volume by the other", lambda: c.ctl(3, "volume", "create", "elsewhere", "--size", 64 * MIB), 90)
    expect(c.leader()[0] != node and c.leader()[1] > term, f"{c.leader()}")
    second_lun(node, True)


run_main(c, [the_pool_is_on_one_lun, where_nothing_has_grown_nothing_is_done, a_grown_lun_is_refused_until_every_node_sees_it,
             the_next_leader_takes_the_grown_lun, a_lun_that_carries_something_is_refused,
             a_node_that_does_not_see_the_new_lun_is_named, it_is_added_once_all_see_it,
             volumes_lie_on_both_and_move_between_nodes, thin_volumes_on_the_second_lun_work_too,
             an_agent_that_starts_again_adopts_what_lies_there, a_node_without_the_lun_cannot_attach_and_says_why,
             the_next_leader_finds_both, a_coordinator_that_loses_the_lun_leaves_the_lead_to_one_that_has_it])
