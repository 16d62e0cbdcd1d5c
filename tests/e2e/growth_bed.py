# SPDX-License-Identifier: Apache-2.0
"""What test_growth.py and growth_bench.py share: volumes on nodes, a writer on each, and what the daemons' logs say of it."""

import datetime
import json
import re

from harness import Cluster, expect

MIB = 1 << 20
GIB = 1 << 30


class Bed(Cluster):
    def put_filler(self):
        for n in range(1, self.nodes + 1):
            self.vm("push", n, self.build / "filler", "/usr/sbin/filler")

    def give(self, name, node, size="20GiB", *options):
        """A volume attached there; returns its device."""
        self.ctl(node, "volume", "create", name, "--size", size, *options)
        return self.ctl(node, "volume", "attach", name, "--node", f"node{node}", timeout=180)["device"]

    def take(self, name, node):
        self.ctl(node, "volume", "detach", name, timeout=180)
        self.ctl(node, "volume", "delete", name)

    def allocated(self, name, ask=1):
        return self.ctl(ask, "volume", "show", name)["allocated"]

    def verify(self, node, device, size, seed, offset=0):
        out = self.x(node, f"filler verify {device} --seed {seed} --bytes {size} --offset {offset}", check=False, timeout=900)
        expect(out.returncode == 0, f"what was written to {device} is not what is read: {out.stdout}{out.stderr}")


class Writer:
    """filler on a node, in the background; one at a time per device."""

    def __init__(self, bed, node, device, size, seed, offset=0, options=""):
        self.bed, self.node, self.device, self.size, self.seed, self.offset = bed, node, device, size, seed, offset
        self.process = bed.spawn(node, f"filler write {device} --seed {seed} --bytes {size} --offset {offset} {options}")

    def running(self):
        return self.process.poll() is None

    def end(self, timeout=600):
        """The writer's figures; Failed if it met an error."""
        out = self.process.communicate(timeout=timeout)[0]
        expect(self.process.returncode == 0, f"the writer on {self.device} failed: {out}")
        return json.loads(out.splitlines()[-1])

    def verify(self):
        self.bed.verify(self.node, self.device, self.size, self.seed, self.offset)


def events(bed, node, log, *names):
    """(name, seconds by the node's clock, rest of the line) of those events, in order."""
    lines = bed.x(node, f"grep -hE ' ({'|'.join(names)}) ' /run/{log}.log || true").stdout.splitlines()
    found = [re.match(r"(\S+Z) .*?\b(" + "|".join(names) + r") (.*)", line) for line in lines]
    return [(m[2], datetime.datetime.fromisoformat(m[1].replace("Z", "+00:00")).timestamp(), m[3]) for m in found if m]


def grow_seconds(bed, node):
    """From each ask of that node's agent until the longer map was in place. One volume at a time."""
    took, asked = [], None
    for name, at, _ in events(bed, node, "agent", "space_asked", "space_grown"):
        if name == "space_asked":
            asked = at
        elif asked is not None:
            took.append(at - asked)
            asked = None
    return took


def commit_seconds(bed, node):
    """From the coming of each ask to that node's coordinator until its answer."""
    return [float(re.search(r" ms=(\d+)", rest)[1]) / 1e3 for _, _, rest in events(bed, node, "coordinator", "growth_done")]
