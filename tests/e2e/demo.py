# SPDX-License-Identifier: Apache-2.0
"""The demo: the main job end to end, every command over the LUN, the network between the nodes cut.

Happy path: the steps below in order, each with the time it took. Failure modes: the first failed step ends the
demo with its words and the folder of the nodes' logs; the cluster is taken down unless --keep was given.
"""

import os
import sys
import time

from harness import Cluster, Failed, Skip, DEVICE, POOL, wait_for

NAMES = [f"disk{i}" for i in range(1, 4)]
SIZE = "10GiB"


class Demo:
    def __init__(self, keep):
        self.started = float(os.environ.get("LUNAR_DEMO_STARTED", time.time()))
        self.count = 0
        self.keep = keep
        self.c = Cluster("demo", keep=keep)

    def step(self, what, function):
        start = time.monotonic()
        try:
            note = function()
        except Skip:
            raise
        except Exception as error:  # whatever it is, the step is named and the logs are kept
            self.c.save_logs()
            print(f"demo: FAILED at step {self.count + 1}: {what}\n  {error}\n  logs: {self.c.logs}")
            raise
        self.count += 1
        print(f"{self.count:2d}. {what:62s} {time.monotonic() - start:6.2f} s{'   ' + note if note else ''}", flush=True)

    # --- the steps ---
    def boot(self):
        self.c.up()
        self.c.install((1, 2, 3))
        return "network between them is cut"

    def format(self):
        self.c.format()
        return f"pool '{POOL}', 4 GiB"

    def agents(self):
        for n in (1, 2, 3):
            self.c.start_agent(n)
        self.c.wait_joined((1, 2, 3))

    def elect(self):
        self.c.start_coordinator(1)
        self.c.start_coordinator(2)
        node, term = self.c.wait_leader()
        self.free = self.c.ctl(3, "status")["vg_free"]
        return f"node{node}, term {term}"

    def create(self):
        for name in NAMES:
            self.c.ctl(3, "volume", "create", name, "--size", SIZE)
        s = self.c.ctl(3, "status")
        return f"{s['provisioned'] >> 30} GiB promised on {s['vg_size'] / 2**30:.1f} GiB"

    def attach_and_fill(self):
        self.device = self.c.ctl(1, "volume", "attach", NAMES[0])["device"]
        return self.device

    def fill(self):
        self.sum = self.c.x(1, f"mkfs.ext4 -q {self.device} && mkdir -p /mnt/v && mount {self.device} /mnt/v && "
                            "dd if=/dev/urandom of=/mnt/v/data bs=1M count=64 conv=fsync status=none && "
                            "sha256sum </mnt/v/data").stdout.split()[0]
        return f"sha256 {self.sum[:16]}…"

    def second_attach(self):
        words = self.c.refused(2, "volume", "attach", NAMES[0])
        if "node1" not in words:
            raise Failed(f"the refusal does not say who holds it: {words}")

    def move(self):
        self.c.x(1, "umount /mnt/v")
        self.c.ctl(1, "volume", "detach", NAMES[0])
        self.device = self.c.ctl(2, "volume", "attach", NAMES[0])["device"]

    def compare(self):
        got = self.c.x(2, f"mkdir -p /mnt/v && mount {self.device} /mnt/v && sha256sum </mnt/v/data").stdout.split()[0]
        if got != self.sum:
            raise Failed(f"checksum {got}, was {self.sum}")
        return "equal"

    def failover(self):
        node, term = self.c.leader()
        # One command on the node: the kill, then a ping that only the standby can answer; its own clock times it.
        self.c.x(node, "pkill -9 -x lunar-coordinat")
        start = time.monotonic()
        s = wait_for("the standby", lambda: self.c.ctl(3, "status"), 30)
        took = time.monotonic() - start
        if s["term"] <= term:
            raise Failed(f"term {s['term']} after {term}")
        return f"{s['coordinator_node']}, term {s['term']}, answered after {took:.2f} s"

    def delete(self):
        self.c.x(2, "umount /mnt/v")
        self.c.ctl(2, "volume", "detach", NAMES[0])
        for name in NAMES:
            self.c.ctl(3, "volume", "delete", name)

    def space(self):
        free = self.c.ctl(3, "status")["vg_free"]
        if free != self.free:
            raise Failed(f"{free} bytes free, were {self.free}")
        return f"{free / 2**30:.2f} GiB free, as before"

    def run(self):
        self.step("three nodes boot on one shared disk file", self.boot)
        self.step(f"the LUN is formatted: {DEVICE}", self.format)
        self.step("three agents join", self.agents)
        self.step("two candidates start, a coordinator is elected", self.elect)
        self.step(f"{len(NAMES)} thin volumes of {SIZE} are created", self.create)
        self.step(f"{NAMES[0]} is attached to node1 (QSD, VDUSE)", self.attach_and_fill)
        self.step("mkfs.ext4, mount, 64 MiB written and checksummed", self.fill)
        self.step("a second attach, to node2, is refused with who holds it", self.second_attach)
        self.step("detached from node1, attached to node2", self.move)
        self.step("mounted there: the checksum is compared", self.compare)
        self.step("kill -9 of the coordinator: the standby answers", self.failover)
        self.step("unmounted, detached, all volumes deleted", self.delete)
        self.step("the LUN's space is back", self.space)
        print(f"demo: ok ({self.count} steps, {time.time() - self.started:.0f} s)")


PLAY = """the cluster is up; try
  on() { tools/vmcluster --cluster demo exec "$1" -- "${@:2}"; }
  on 3 lunarctl status
  on 3 lunarctl volume create mydisk --size 5GiB
  on 3 lunarctl volume attach mydisk
  on 3 lunarctl lun dump /dev/vdb
  tools/vmcluster --cluster demo cut 3    # its power; `on 1 lunarctl node list` says when its death is proved
  on 1 lunarctl volume attach mydisk
  tools/demo --back 3                     # on again, with lunar on it
and take it down with
  tools/vmcluster --cluster demo down"""


def back(node):
    """A node of the kept cluster that was cut: on again, joined again."""
    c = Cluster("demo", keep=True)
    try:
        c.vm("start", node)
        c.install((node,))
        c.start_agent(node)
        c.wait_joined((node,))
    except (Failed, Skip) as error:
        print(f"demo: {error}")
        return 1
    print(f"node{node} has joined again")
    return 0


def main():
    if sys.argv[1:2] == ["--back"]:
        return back(sys.argv[2])
    demo = Demo("--keep" in sys.argv[1:])
    try:
        demo.run()
    except Skip as reason:
        print(f"demo: this machine cannot run it: {reason}")
        return 77
    except Exception:  # told by step() already
        return 1
    finally:
        demo.c.close()
    if demo.keep:
        print(PLAY)
    return 0


if __name__ == "__main__":
    sys.exit(main())
