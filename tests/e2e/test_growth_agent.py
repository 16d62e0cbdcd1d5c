# SPDX-License-Identifier: Apache-2.0
"""Growth when the agent or the storage daemon is what fails: three nodes, one LUN, writers at full speed (SAFETY 20).

A writer whose agent stands still, is killed or has its daemon killed under it may wait, and must end without an error and
find what it wrote. Happy path first: the log says what was asked for and given. Failure modes: a writer that ends early,
or one that never goes on, is a failed test that says so.
"""

import re

from growth_bed import GIB, MIB, Bed, Writer, events
from harness import expect, run_main, wait_for

c = Bed("e2e-grow-agent", build="build/dev", lun_size="6G")
SIZE = 8 * GIB  # more than the LUN has
SEED = 11
NODE = 3


def agent(signal):
    c.x(NODE, f"pkill -{signal} -x lunar-agent")


def daemon():
    """The pid of the only storage daemon there."""
    return int(c.x(NODE, "pgrep -x qemu-storage-da").stdout.split()[0])


def map_of(name):
    """The leaf's map on the node."""
    return c.x(NODE, f"dmsetup ls | grep -oE '^lunar-v[0-9a-f]+-l[0-9]+'").stdout.split()[0]


def mapped(device_map):
    """Bytes of it that lie on the LUN: all targets but the last one, which is the tail."""
    lines = c.x(NODE, f"dmsetup table {device_map}").stdout.splitlines()
    return int(lines[-1].split()[0]) * 512


def waits(device_map):
    """Something is in flight through it, and nothing has ended for half a second."""
    number = c.x(NODE, f"dmsetup info -c --noheadings --separator : -o major,minor {device_map}").stdout.strip()
    look = f"cat /sys/dev/block/{number}/inflight /sys/dev/block/{number}/stat"
    first = c.x(NODE, f"({look}); sleep 0.5; ({look})").stdout.splitlines()
    done = [re.split(r"\s+", s.strip()) for s in (first[1], first[3])]
    return first[2].split() != ["0", "0"] and (done[0][0], done[0][4]) == (done[1][0], done[1][4])


def writer_comes_to_the_end(name, size):
    """A writer on a new volume whose agent stands still: it has filled what there is, and waits."""
    device = c.give(name, NODE, str(SIZE))
    device_map = map_of(name)
    agent("STOP")
    w = Writer(c, NODE, device, size, SEED)
    wait_for("the writer to come to the end", lambda: waits(device_map), 120)
    expect(w.running(), "the writer has ended")
    return w, device_map


def ends(w, name):
    result = w.end(600)
    w.verify()
    c.take(name, NODE)
    expect(c.x(NODE, "dmsetup ls | grep -c lunar || true").stdout.strip() == "0", "a map of lunar's is left")
    return f"{result['bytes'] / MIB / result['seconds']:.0f} MiB/s, {result['stalls']} stalls, " \
           f"the longest {result['longest_stall_s']:.2f} s"


# --- tests ---

def pool_comes_up():
    c.pool_up()
    c.put_filler()


def space_is_asked_for_before_it_ends():
    device = c.give("plain", NODE, str(SIZE))
    w = Writer(c, NODE, device, 768 * MIB, SEED)
    figures = ends(w, "plain")
    asks = [re.search(r"from=(\d+) to=(\d+)", rest) for _, _, rest in events(c, NODE, "agent", "space_asked")]
    expect(asks and all(int(m[2]) - int(m[1]) >= 128 * MIB for m in asks), f"{asks}")
    expect(int(asks[0][1]) == 128 * MIB, "it does not begin with 128 MiB")
    return f"{len(asks)} asks, {figures}"


def the_agent_stands_still_while_the_writer_comes_to_the_end():
    w, device_map = writer_comes_to_the_end("still", 512 * MIB)
    before = mapped(device_map)
    agent("CONT")
    wait_for("more space", lambda: mapped(device_map) > before, 60)
    return ends(w, "still")


def the_agent_is_killed_while_the_writer_waits():
    w, _ = writer_comes_to_the_end("orphan", 512 * MIB)
    agent("9")
    c.start_agent(NODE)
    c.wait_joined((NODE,))
    return ends(w, "orphan")


def the_agent_is_killed_again_and_again_under_a_writer():
    device = c.give("often", NODE, str(SIZE))
    device_map = map_of("often")
    w = Writer(c, NODE, device, 1024 * MIB, SEED)
    for _ in range(3):
        before = mapped(device_map)
        wait_for("a growth", lambda: not w.running() or mapped(device_map) > before, 120)
        agent("9")
        c.start_agent(NODE)
        c.wait_joined((NODE,))
    return ends(w, "often")


def the_daemon_is_killed_while_its_writes_wait():
    w, _ = writer_comes_to_the_end("dead", 512 * MIB)
    old = daemon()
    c.x(NODE, f"kill -9 {old}")
    agent("CONT")
    wait_for("another daemon", lambda: daemon() != old, 60)
    return ends(w, "dead")


def agent_and_daemon_are_killed_while_writes_wait():
    """The daemon cannot exit before its writes end; an agent that finds it must give it space all the same."""
    w, _ = writer_comes_to_the_end("both", 512 * MIB)
    old = daemon()
    agent("9")
    c.x(NODE, f"kill -9 {old}")
    c.start_agent(NODE)
    c.wait_joined((NODE,))
    wait_for("another daemon", lambda: daemon() != old, 120)
    return ends(w, "both")


def everything_is_given_back():
    c.ctl(1, "verify", timeout=180)


run_main(c, [pool_comes_up, space_is_asked_for_before_it_ends, the_agent_stands_still_while_the_writer_comes_to_the_end,
             the_agent_is_killed_while_the_writer_waits, the_agent_is_killed_again_and_again_under_a_writer,
             the_daemon_is_killed_while_its_writes_wait, agent_and_daemon_are_killed_while_writes_wait,
             everything_is_given_back], always=(pool_comes_up,))
