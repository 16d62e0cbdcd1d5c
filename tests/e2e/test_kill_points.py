# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the coordinator at every external effect of a volume's whole life, and the next coordinator completes it.

The executor itself numbers its effects (effect_point in the coordinator): for n = 1, 2, ... a coordinator that kills
itself at its n-th effect leads, a plain one stands by, and create, attach, detach and delete are asked for once each. All
four must succeed, and nothing may be left over. The loop ends when the suicidal coordinator survives: a new effect
in the code is tested without editing this file.

By default every third effect is walked, always the same ones: 1, 4, 7, ... With LUNAR_TEST_LONG=1 (tools/test --long)
all of them are; whoever adds or moves an effect runs that.
"""

import sys

from harness import LONG, Cluster, Failed, Skip, fatal, run_tests, wait_for

c = Cluster("e2e-kill", build="build/dev")
POINTS_MAX = 120
STEP = 1 if LONG else 3


def pool_comes_up():
    c.pool_up(coordinators=(1,))
    c.free = c.ctl(3, "status")["vg_free"]


def whole_life():
    name = "kp"
    c.ctl(3, "volume", "create", name, "--size", "1GiB")
    device = c.ctl(3, "volume", "attach", name)["device"]
    c.x(3, f"dd if=/dev/zero of={device} bs=4k count=1 oflag=direct status=none")
    c.ctl(3, "volume", "detach", name)
    c.ctl(3, "volume", "delete", name)


def check_clean():
    s = c.ctl(3, "status")
    if s["vg_free"] != c.free or s["volumes"] or s["attachments"]:
        raise Failed(f"left over: {s}")
    if c.agent_status(3)["volumes"]:
        raise Failed("the node still holds something")


def every_point_is_survived():
    names = []
    for n in range(1, POINTS_MAX, STEP):
        victim = c.hand_over(n)
        try:
            whole_life()
            check_clean()
        except Failed as error:
            raise Failed(f"killed at effect {n} (after {names[-1:]}): {error}") from error
        points = c.x(victim, "cat /run/points").stdout.split("\n")
        if c.x(victim, "pgrep -x lunar-coordinat", check=False).returncode == 0:
            if n < 20:
                raise Failed(f"only {n} effects were met: the test sees nothing")
            kinds = sorted({p.split(" ", 1)[1] for p in points if " " in p})
            return f"{len(names)} points, the last of them {n - STEP}: " + " ".join(kinds)
        names.append(points[-2] if len(points) > 1 else "?")
    raise Failed(f"more than {POINTS_MAX} effects")


if __name__ == "__main__":
    try:
        with c:
            which = "every" if STEP == 1 else "every third"
            sys.exit(run_tests([("pool comes up", pool_comes_up),
                                (f"kill -9 at {which} external effect is completed by the next coordinator",
                                 every_point_is_survived)]))
    except (Skip, Failed) as error:
        fatal(error)
