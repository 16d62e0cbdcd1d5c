# SPDX-License-Identifier: Apache-2.0
"""Space that is given back, on three nodes: what was discarded or grown in vain at a volume's end goes to the pool, others
use it at once, and what is left reads as it was; by `lunarctl volume trim`, by itself, over an attach meanwhile, and over
the deaths of the agent that measures and of the coordinator at its external effects.

Tests run in order on one cluster. LUNAR_TRIM is 8 s of rest here instead of a minute.
"""

from growth_bed import GIB, MIB, Bed, Writer
from harness import LONG, Failed, expect, run_main, wait_for

REST_S = 8
RESERVE = 128 * MIB  # that a leaf keeps behind its end
EXTENT = 32 * MIB
KILL_STEP = 1 if LONG else 11
KILL_POINTS_MAX = 80
SLOW_QEMU_IMG = '#!/bin/sh\\n[ "$1" = check ] && sleep 4\\nexec /usr/bin/qemu-img "$@"\\n'


class TrimBed(Bed):
    def start_coordinator(self, node, env=""):
        super().start_coordinator(node, env=f"LUNAR_TRIM={REST_S} {env}")


c = TrimBed("e2e-trim", build="build/dev", lun_size="4G")


def free():
    return c.ctl(1, "status")["vg_free"]


def fill(node, device, size, seed, offset=0):
    expect(Writer(c, node, device, size, seed, offset).end()["errors"] == 0, "the writer saw errors")


def measuring():
    """The nodes on which a job has something mapped."""
    return [n for n in (1, 2, 3) if "lunar-job-" in c.x(n, "dmsetup ls").stdout]


def slow_down(on):
    for n in (1, 2, 3):
        c.x(n, f"mkdir -p /usr/local/sbin; printf '{SLOW_QEMU_IMG}' >/usr/local/sbin/qemu-img; chmod +x /usr/local/sbin/qemu-img" if on else
            "rm -f /usr/local/sbin/qemu-img")


# --- tests ---

def pool_comes_up():
    c.pool_up()
    c.put_filler()
    c.free = free()


def what_was_written_and_discarded_is_given_back():
    device = c.give("db", 3, "4GiB")
    fill(3, device, 448 * MIB, seed=1)
    grown = c.allocated("db")
    c.x(3, f"blkdiscard {device}")
    refusal = c.refused(1, "volume", "trim", "db")
    expect("node3" in refusal, f"an attached volume: {refusal}")
    c.ctl(3, "volume", "detach", "db")
    freed = c.ctl(1, "volume", "trim", "db")["freed"]
    left = c.allocated("db")
    expect(left <= RESERVE + EXTENT and freed == grown - left, f"{left} bytes are left of {grown}, {freed} were freed")
    expect(free() == c.free - left, f"{free()} bytes are free, {left} allocated, and there were {c.free}")
    return f"{grown / MIB:.0f} MiB before, {left / MIB:.0f} MiB after"


def what_is_kept_reads_as_it_was_and_the_rest_is_used_by_others():
    device = c.ctl(2, "volume", "attach", "db")["device"]
    fill(2, device, 640 * MIB, seed=2)
    grown = c.allocated("db")
    c.x(2, f"blkdiscard -o {200 * MIB} -l {440 * MIB} {device}")
    c.ctl(2, "volume", "detach", "db")
    c.ctl(1, "volume", "trim", "db")
    left = c.allocated("db")
    # The table of the second half GiB lies where that began.
    expect(left <= 512 * MIB + RESERVE + EXTENT, f"{left} bytes are left of {grown}")
    other = c.give("other", 1, "4GiB")  # its extents begin where the others ended
    fill(1, other, 400 * MIB, seed=3)
    device = c.ctl(3, "volume", "attach", "db")["device"]
    c.verify(3, device, 200 * MIB, seed=2)
    c.x(3, f"cmp -n {64 * MIB} -i {400 * MIB}:0 {device} /dev/zero")
    fill(3, device, 256 * MIB, seed=4, offset=2 * GIB)  # it grows again
    c.verify(3, device, 256 * MIB, seed=4, offset=2 * GIB)
    c.verify(3, device, 200 * MIB, seed=2)
    c.verify(1, other, 400 * MIB, seed=3)
    c.x(1, "lunarctl verify")
    c.take("other", 1)
    c.take("db", 3)
    expect(free() == c.free, f"{free()} of {c.free} bytes are free")
    return f"{grown / MIB:.0f} MiB before, {left / MIB:.0f} MiB after"


def a_volume_at_rest_gives_it_back_by_itself():
    device = c.give("db", 1, "4GiB")
    fill(1, device, 200 * MIB, seed=5)
    c.ctl(1, "snapshot", "create", "db", "s")
    fill(1, device, 300 * MIB, seed=6)
    c.x(1, f"blkdiscard -l {300 * MIB} {device}")
    grown = free()
    c.ctl(1, "volume", "detach", "db")
    goal = c.free - (200 * MIB + EXTENT) - (RESERVE + EXTENT)
    wait_for("both layers to be trimmed", lambda: free() >= goal, REST_S + 100, pause=1)
    c.ctl(2, "volume", "create", "of-s", "--from-snapshot", "s")
    c.verify(2, c.ctl(2, "volume", "attach", "of-s")["device"], 200 * MIB, seed=5)
    c.x(2, "lunarctl verify")
    c.take("of-s", 2)
    return f"{(free() - grown) / MIB:.0f} MiB"


def an_attach_meanwhile_is_not_held_up():
    device = c.ctl(1, "volume", "attach", "db")["device"]
    fill(1, device, 200 * MIB, seed=7)
    c.x(1, f"blkdiscard {device}")
    c.ctl(1, "volume", "detach", "db")
    slow_down(True)
    trim = c.spawn(1, "lunarctl -o json volume trim db")
    wait_for("the measurement", measuring, 20)
    before = c.allocated("db")
    device = c.ctl(2, "volume", "attach", "db")["device"]
    fill(2, device, 300 * MIB, seed=8)
    c.ctl(2, "volume", "detach", "db")
    out, _ = trim.communicate(timeout=60)
    expect(trim.returncode != 0 and "meanwhile" in out, f"it was trimmed all the same: {out}")
    expect(c.allocated("db") >= before, "it has less space than before")
    c.verify(2, c.ctl(2, "volume", "attach", "db")["device"], 300 * MIB, seed=8)
    c.ctl(2, "volume", "detach", "db")


def an_agent_that_dies_over_it_leaves_the_volume_as_it_is():
    trim = c.spawn(1, "lunarctl -o json volume trim db")
    node = wait_for("the measurement", measuring, 20)[0]
    c.x(node, "pkill -9 -x lunar-agent")
    c.start_agent(node)
    c.wait_joined([node])
    trim.communicate(timeout=150)
    slow_down(False)
    wait_for("no job to be left", lambda: not measuring(), 30)
    wait_for("it to be trimmed", lambda: c.ctl(2, "volume", "trim", "db"), 60, pause=1)
    c.verify(3, c.ctl(3, "volume", "attach", "db")["device"], 300 * MIB, seed=8)
    c.take("db", 3)
    c.ctl(3, "snapshot", "delete", "s")
    wait_for("all space to be free", lambda: free() == c.free, 30)


def trimmed(before):
    """The request, until it has given back: a layer whose job a dead coordinator left counts as open until that is taken back."""
    c.ctl(3, "volume", "trim", "kp")
    return free() > before + 90 * MIB


def a_coordinator_that_dies_at_any_effect_leaves_one_size_or_the_other():
    c.ctl(3, "volume", "create", "kp", "--size", "1GiB")
    device = c.ctl(3, "volume", "attach", "kp")["device"]
    fill(3, device, 8 * MIB, seed=9)
    c.ctl(3, "volume", "detach", "kp")
    for n in range(1, KILL_POINTS_MAX, KILL_STEP):
        c.ctl(3, "snapshot", "create", "kp", f"s{n}")  # freezes a layer of 128 MiB
        before = free()
        victim = c.hand_over(n)
        wait_for(f"the trim of a coordinator killed at effect {n}", lambda: trimmed(before), 60, pause=0.5)
        c.verify(3, c.ctl(3, "volume", "attach", "kp")["device"], 8 * MIB, seed=9)
        c.ctl(3, "volume", "detach", "kp")
        if c.x(victim, "pgrep -x lunar-coordinat", check=False).returncode == 0:
            c.x(3, "lunarctl verify")
            return f"{n - 1} effects"
    raise Failed(f"more than {KILL_POINTS_MAX} effects")


if __name__ == "__main__":
    run_main(c, [pool_comes_up, what_was_written_and_discarded_is_given_back,
                 what_is_kept_reads_as_it_was_and_the_rest_is_used_by_others, a_volume_at_rest_gives_it_back_by_itself,
                 an_attach_meanwhile_is_not_held_up, an_agent_that_dies_over_it_leaves_the_volume_as_it_is,
                 a_coordinator_that_dies_at_any_effect_leaves_one_size_or_the_other])
