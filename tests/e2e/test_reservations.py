# SPDX-License-Identifier: Apache-2.0
"""A pool on an iSCSI LUN: the test bed's storage network, and what persistent reservations add (SAFETY 13).

Happy path: a cluster whose LUN comes from a target machine, one cluster for all tests, in order. A victim floods blocks
of the LUN with stamped writes; something stops it with writes in flight; its key is preempted; the new owner writes
the same blocks; the victim comes back; then the host looks at the LUN's file: every block must be the owner's. It looks
after 5 s, with --long after 60 s. Failure modes: a kernel without the modules of target or initiator skips the whole
(77).
"""

import json
import pathlib
import re
import time

from harness import LONG, POOL, Cluster, expect, run_main, wait_for

c = Cluster("e2e-pr", nodes=2, lun_size="2G", build="build/dev", iscsi="fast")
READ = f"dd if={c.device} of=/dev/null bs=4096 count=1 skip=9 iflag=direct 2>&1"
POOL_ID = "3d594650-3436-4a8e-a5e1-0c7d35a5a5a5"
FIRST, COUNT = 4096, 512  # the blocks that are fought for: 2 MiB at 16 MiB
LOOK_S = 60 if LONG else 5


def reads(node):
    return c.x(node, READ, check=False).returncode == 0


def a_cut_storage_network_fails_io_in_time_and_heals():
    expect(reads(1) and reads(2), "the LUN cannot be read")
    c.vm("san-cut", 1)
    start = time.monotonic()
    expect(not reads(1), "a read goes through the cut")
    failed_s = time.monotonic() - start
    expect(failed_s < 8, f"the read failed after {failed_s:.1f} s: too close to 8N = 16 s")
    expect(reads(2), "the other node is cut off, too")
    c.vm("san-heal", 1)
    wait_for("node1 to read again", lambda: reads(1), 20)
    return f"EIO after {failed_s:.1f} s"


def a_stopped_target_fails_io_and_comes_back():
    c.vm("exec", "target", "-n", "--", "node-target", "stop")
    wait_for("reads to fail", lambda: not reads(1) and not reads(2), 20)
    c.vm("exec", "target", "-n", "--", "node-target", "start")
    for n in (1, 2):
        wait_for(f"node{n} to read again", lambda n=n: reads(n), 20)


# --- reservation.h on a real array, without a pool ---

def driver(node, *words):
    r = c.x(node, f"reservation_driver {c.device} {POOL_ID} {' '.join(map(str, words))}", check=False)
    return r.returncode, (r.stdout if r.returncode == 0 else r.stderr).strip()


def must(node, *words):
    """What a path's failure leaves unknown is asked again: a target on a busy host misses two pings now and then."""
    end = time.monotonic() + 30
    code, text = driver(node, *words)
    while code and text.startswith(("INDETERMINATE", "EIO")) and time.monotonic() < end:
        code, text = driver(node, *words)
    expect(code == 0, f"reservation_driver {words}: {text}")
    return text


def refused(node, code, *words):
    rc, text = driver(node, *words)
    expect(rc == 1 and text.startswith(code), f"reservation_driver {words} ended {rc}, not {code}: {text}")


def write(node):
    return c.x(node, f"dd if=/dev/zero of={c.device} bs=4096 count=1 seek=9 oflag=direct 2>&1", check=False)


def equip(node):
    c.vm("push", node, c.build / "reservation_driver", "/usr/sbin/")
    c.vm("push", node, pathlib.Path(__file__).with_name("stamp_writer.py"), "/root/")


def only_registrants_write_and_the_preempted_do_not():
    equip(1)
    equip(2)
    must(1, "clear")
    must(1, "register", 1, 1)  # the one that makes the reservation is the one that is preempted
    expect("Invalid exchange" in write(2).stdout, "a node without a key writes")
    must(2, "register", 2, 1)
    expect(write(1).returncode == 0 and write(2).returncode == 0, "a registrant cannot write")
    ms = int(must(2, "preempt", 2, 1, 1, 1))
    expect(ms < 2000, f"the preempt took {ms} ms")
    expect("Invalid exchange" in write(1).stdout, "the preempted node writes")
    expect(write(2).returncode == 0, "the reservation ended with the one that had made it, or all are shut out")
    refused(1, "FENCED", "check", 1, 1)
    refused(1, "FENCED", "change", 1, 1, 1, 2)
    refused(1, "FENCED", "preempt", 1, 1, 2, 1)
    must(1, "register", 1, 2)  # a new life
    expect(write(1).returncode == 0, "the next generation cannot write")
    must(2, "preempt", 2, 1, 1, 1)
    must(1, "check", 1, 2)
    return f"preempt {ms} ms"


def lun_blocks(place=FIRST * 4096):
    """Who wrote each of the blocks, from the LUN's file on the host."""
    with open(c.vm("lun-path").stdout.strip(), "rb") as f:
        f.seek(place)
        return [f.read(4096).split(b" ", 1)[0].decode(errors="replace") for _ in range(COUNT)]


def expect_owner_everywhere(blocks):
    others = [who for who in blocks if who != "owner"]
    expect(not others, f"{len(others)} blocks of {len(blocks)} are not the owner's but {set(others)}'s")


def flood_log(node):
    return json.loads(c.x(node, "cat /run/flood").stdout)


def start_flood(device, first, count):
    """On node2, as the victim; returns when it has written for a while."""
    c.x(2, f"rm -f /run/flood; setsid python3 /root/stamp_writer.py flood {device} victim {first} {count} /run/flood "
           ">/run/flood.err 2>&1 </dev/null &")
    wait_for("the flood", lambda: flood_log(2)["written"] > 200, 30)


def stray_writes(generation, stop, go_on, told, stopped_s=0.5):
    """node2, as generation `generation`, is stopped in mid-flood, preempted, goes on, and is told these errors; a write had
    waited at least for `stopped_s`."""
    must(2, "register", 2, generation)
    start_flood(c.device, FIRST, COUNT)
    stop()
    # In one go: a cut that lasts more than 5 s is given up by the initiator, and then nothing is sent again.
    ms = c.x(1, f"for i in $(seq 20); do reservation_driver {c.device} {POOL_ID} preempt 1 2 2 {generation} && break; done && "
                f"python3 /root/stamp_writer.py once {c.device} owner {FIRST} {COUNT}").stdout.strip()
    go_on()
    log = wait_for("the end of the flood", lambda: flood_log(2)["done"] and flood_log(2), 90)
    expect(log["longest_s"] >= stopped_s, f"no write was in flight when the node was stopped: {log}")
    expect(set(log["errors"]) <= told, f"not the errors that were expected: {log}")
    time.sleep(LOOK_S)
    expect_owner_everywhere(lun_blocks())
    expect("Invalid exchange" in write(2).stdout, "the victim can write")
    return f"preempt {ms} ms, {log['written']} writes, then {log['errors']}, longest {log['longest_s']:.1f} s"


def freeze_for_a_while():
    c.vm("freeze", 2)
    time.sleep(2)


def safety_13_a_frozen_and_thawed_node_writes_nothing_any_more():
    return stray_writes(5, freeze_for_a_while, lambda: c.vm("thaw", 2), {"52"}, stopped_s=2)


def safety_13_writes_in_flight_at_a_network_cut_do_not_land_later():
    # Healed within 5 s, what was lost in the cut is sent again by TCP, and refused (52); on a host that is slower than
    # that the initiator has given it up (5).
    return stray_writes(6, lambda: c.vm("san-cut", 2), lambda: c.vm("san-heal", 2), {"5", "52"})


SESSION = "/sys/class/iscsi_session/session*"


def session_of_node2(word):
    return c.x(2, f"cat {SESSION}/{word}").stdout.strip()


def be_patient(seconds):
    """The replacement_timeout of the session as it stands."""
    c.x(2, f"for s in {SESSION}; do echo {seconds} >$s/recovery_tmo; done")


def cut_until_the_session_is_lost():
    c.vm("san-cut", 2)
    wait_for("the initiator to give the connection up", lambda: session_of_node2("state") != "LOGGED_IN", 20)


def safety_13_writes_that_the_transport_sends_again_by_itself_do_not_land():
    """The connection is lost, not the patience: with the next one the initiator sends everything in flight again."""
    fast = session_of_node2("recovery_tmo")
    be_patient(120)
    try:
        return stray_writes(7, cut_until_the_session_is_lost, lambda: c.vm("san-heal", 2), {"52"}, stopped_s=3)
    finally:
        be_patient(fast)


# --- a pool with --require-pr ---

# On node1, timed there: what comes between is the test bed's.
MOVE = """start=$(date +%s%N); lunarctl node fence node2 --i-have-powered-it-off >/dev/null || exit 1
for i in $(seq 100); do dev=$(lunarctl volume attach vol 2>/run/attach.err) && break; sleep 0.1; done
[ -b "$dev" ] || { cat /run/attach.err; exit 1; }
echo $dev $(( ($(date +%s%N) - start) / 1000000 ))"""
VOLUME_BLOCKS = 512


def format_with_reservations():
    return c.x(1, f"lunarctl -o json lun format {c.device} --pool {POOL} --io-timeout 2 --watchdog-timeout 10 "
                  "--max-nodes 8 --require-pr --force 2>/dev/null")  # a small area: zeroing it takes long


def a_pool_that_requires_reservations_comes_up():
    r = wait_for("the format", format_with_reservations, 60)  # see must()
    expect(json.loads(r.stdout)["require_pr"], "format does not say that reservations are required")
    expect("Invalid exchange" not in write(2).stdout, "the keys of the tests above were not cleared")
    for n in (1, 2):
        c.start_agent(n)
    c.start_coordinator(1)
    c.wait_joined((1, 2))
    c.wait_leader(ask=2)
    c.ctl(1, "volume", "create", "vol", "--size", "64MiB", "--thick", timeout=120)
    keys = c.x("target", "cat /sys/kernel/config/target/core/iblock_0/lun/pr/res_pr_registered_i_pts").stdout
    expect(keys.count("0x4c") == 2, f"not two keys of lunar: {keys}")


def restart_sanlock_after_boot(node):
    """A node that was reset: on again, with what a node has."""
    c.vm("start", node)
    c.install((node,))
    equip(node)


def volume_place(node):
    """Where on the LUN the attached volume begins, from the node's own maps."""
    tables = c.x(node, "dmsetup table").stdout
    found = re.findall(r"linear 8:0 (\d+)", tables)
    expect(len(found) == 1, f"not one map onto the LUN: {tables}")
    return int(found[0]) * 512


def state_of_node2():
    """joined, ..., or off."""
    rows = json.loads(c.vm("status", "-o", "json").stdout)["nodes"]
    return next(r["state"] for r in rows if r["node"] == "node2")


def move_while(stop, go_on):
    """The volume is flooded on node2, node2 is stopped and fenced, node1 has it; node2 goes on. Returns its ms."""
    device = c.ctl(2, "volume", "attach", "vol")["device"]
    place = volume_place(2)
    start_flood(device, 0, VOLUME_BLOCKS)
    stop()
    mine, ms = c.x(1, MOVE).stdout.split()
    c.x(1, f"python3 /root/stamp_writer.py once {mine} owner 0 {VOLUME_BLOCKS}")
    expect_owner_everywhere(lun_blocks(place))
    go_on()
    time.sleep(LOOK_S)
    expect_owner_everywhere(lun_blocks(place))
    expect(int(ms) <= 5000, f"the move took {ms} ms")
    return ms


def back_as_another_generation(old):
    """node2 is a member again, under a newer key."""
    if state_of_node2() == "off":  # its watchdog was faster than its guard: allowed for a frozen node
        restart_sanlock_after_boot(2)
        c.start_agent(2)
    return wait_for("node2 as a new generation", lambda: c.agent_status(2)["state"] == "joined" and
                    c.agent_status(2)["generation"] > old and c.agent_status(2)["generation"], 90)


def use_by_turns(attached):
    """The volume goes from node to node again."""
    if attached:
        c.ctl(attached, "volume", "detach", "vol")
    c.ctl(2, "volume", "attach", "vol")
    c.ctl(2, "volume", "detach", "vol")


def safety_13_node_fence_moves_a_frozen_nodes_volume_at_once():
    old = c.agent_status(2)["generation"]
    ms = move_while(lambda: c.vm("freeze", 2), lambda: c.vm("thaw", 2))
    new = back_as_another_generation(old)
    use_by_turns(attached=1)
    return f"moved in {ms} ms, generation {old} to {new}"


def safety_13_a_living_node_that_is_fenced_finds_out_and_fences_itself():
    old = c.agent_status(2)["generation"]
    boot = c.x(2, "cat /proc/sys/kernel/random/boot_id").stdout
    ms = move_while(lambda: None, lambda: None)
    new = back_as_another_generation(old)
    use_by_turns(attached=1)
    expect(c.x(2, "cat /proc/sys/kernel/random/boot_id").stdout == boot, "node2 was reset, instead of fencing itself")
    return f"moved in {ms} ms, generation {old} to {new}"


# --- only with --long ---

def an_iscsi_node_that_loses_the_lun_under_load_fences_itself_without_a_reset():
    """The busy hang of a transport that gives up well within 8N: in flight I/O fails, so that there is a proof."""
    boot = c.x(2, "cat /proc/sys/kernel/random/boot_id").stdout
    old = c.agent_status(2)["generation"]
    start_flood(c.ctl(2, "volume", "attach", "vol")["device"], 0, VOLUME_BLOCKS)
    c.vm("san-cut", 2)
    start = time.monotonic()
    wait_for("node2 to fence itself", lambda: c.agent_status(2)["state"] not in ("joined", "leaving"), 30)
    fenced_s = time.monotonic() - start
    wait_for("the flood's errors", lambda: flood_log(2)["done"], 30)
    time.sleep(max(0.0, 45 - (time.monotonic() - start)))  # the watchdog would have fired by 26 s, DEAD come by 32
    expect(state_of_node2() == "running", "node2 was reset")
    c.vm("san-heal", 2)
    new = back_as_another_generation(old)
    use_by_turns(attached=None)  # it was taken when the node was DEAD
    expect(c.x(2, "cat /proc/sys/kernel/random/boot_id").stdout == boot, "node2 was reset")
    return f"fenced after {fenced_s:.1f} s, generation {old} to {new}"


SLOW_LVM = r"""
mv /usr/sbin/lvm /usr/sbin/lvm.real && cat >/usr/sbin/lvm <<'X' && chmod 755 /usr/sbin/lvm
#!/bin/bash
case "$*" in
*lvcreate*)
    touch /run/lvm-now
    exec strace -f -o /run/lvm.strace -e trace=io_submit,pwrite64 -e inject=io_submit,pwrite64:delay_enter=500000 \
        /usr/sbin/lvm.real "$@";;
esac
exec /usr/sbin/lvm.real "$@"
X
"""
METADATA_BYTES = 65 << 20  # what is in front of the reserved area: the first metadata area


def metadata():
    with open(c.vm("lun-path").stdout.strip(), "rb") as f:
        return f.read(METADATA_BYTES)


def seqno():
    return max(map(int, re.findall(rb"\nseqno = (\d+)", metadata())), default=0)


def settled():
    """The metadata, once nothing has written it for 6 s."""
    before = metadata()
    time.sleep(6)
    return before if metadata() == before else None


def safety_13_a_commit_of_a_frozen_coordinator_does_not_land_later():
    """node1 leads and is frozen in its lvm, behind the check of its term; node2 takes over; node1 goes on."""
    c.x(1, SLOW_LVM)
    c.start_coordinator(2)
    before = seqno()
    expect(before > 0, "no metadata was found")
    asked = c.spawn(2, "lunarctl volume create late --size 64MiB --thick")
    wait_for("the leader's lvm", lambda: c.x(1, "test -e /run/lvm-now", check=False).returncode == 0, 30)
    c.vm("freeze", 1)
    expect(seqno() == before, "node1 had committed before it was frozen: nothing is tested")
    wait_for("node2 to lead", lambda: c.leader(ask=2)[0] == 2, 120)
    log = c.x(2, "cat /run/coordinator.log").stdout
    expect("preempting_before_first_commit host_id=" in log, "node2 led without a preempt: " + log[-600:])
    asked.wait(60)
    c.ctl(2, "volume", "create", "late", "--size", "64MiB", "--thick", timeout=120)
    theirs = wait_for("the metadata to be settled", settled, 60)
    c.vm("thaw", 1)
    time.sleep(LOOK_S)
    expect(metadata() == theirs, "node1 wrote metadata after it was preempted")
    conflicts = c.vm("logs", 1, "--boot").stdout.count("reservation conflict")  # none where the watchdog was faster
    return f"seqno {before} before, {seqno()} after, {conflicts} writes of node1 refused"


# In order; True: only with --long, to keep the default run short.
TESTS = [test for test, long in (
    (a_cut_storage_network_fails_io_in_time_and_heals, False),
    (a_stopped_target_fails_io_and_comes_back, True),
    (only_registrants_write_and_the_preempted_do_not, False),
    (safety_13_a_frozen_and_thawed_node_writes_nothing_any_more, True),
    (safety_13_writes_in_flight_at_a_network_cut_do_not_land_later, True),
    (safety_13_writes_that_the_transport_sends_again_by_itself_do_not_land, True),
    (a_pool_that_requires_reservations_comes_up, False),
    (safety_13_a_living_node_that_is_fenced_finds_out_and_fences_itself, True),
    (safety_13_node_fence_moves_a_frozen_nodes_volume_at_once, False),
    (an_iscsi_node_that_loses_the_lun_under_load_fences_itself_without_a_reset, True),
    (safety_13_a_commit_of_a_frozen_coordinator_does_not_land_later, True),
) if LONG or not long]

if __name__ == "__main__":
    run_main(c, TESTS)
