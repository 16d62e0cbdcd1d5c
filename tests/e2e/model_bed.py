# SPDX-License-Identifier: Apache-2.0
"""The nodes of test_model.py: requests that are repeated until they are done, what is killed under them, what the background
has done, and the layers' own bytes.

Random choices of what is done come from `r`, of the seed alone; whom to ask and when to kill from `luck`, for how often that
is asked depends on timing.
"""

import collections
import json
import random
import threading
import time

from harness import POOL, TOP, Cluster, Failed, expect, wait_for

NODES = (1, 2, 3)
REST_S = 5  # after which a layer is trimmed by itself, instead of a minute
RETRY_S = 150  # an operation is asked for again that long: a dead node's volumes are free after less
FINAL = ("INVALID", "UNSUPPORTED", "EXISTS", "usage", "CORRUPT", "METADATA:")
BACKGROUND = {"merges": "op_done kind=merge .* code=OK", "relinks": "op_done kind=relink .* code=OK",
              "failed merges": "op_done kind=merge .* code=[^O]", "trims": " trim layer="}


class Bed(Cluster):
    def __init__(self, pool, seed, note):
        super().__init__("e2e-model", build="build/dev", lun_size="8G")
        self.pool, self.note = pool, note
        self.r, self.luck = random.Random(seed), random.Random(seed + 1)
        self.down = set()  # nodes whose power is cut
        self.one_fault = threading.Lock()
        self.counts, self.lost = collections.Counter(), collections.Counter()

    def start_coordinator(self, node, env=""):
        super().start_coordinator(node, env=f"LUNAR_TRIM={REST_S} {env}")

    def up_node(self):
        return self.luck.choice([n for n in NODES if n not in self.down])

    def asked(self, *args, done_if=()):
        """Asks until it is done: every operation may be repeated. `done_if`: words of a refusal that say that it is done."""
        def attempt():
            try:
                return self.ctl(self.up_node(), *args) or True
            except Failed as error:
                if any(word in str(error) for word in done_if):
                    return True
                if any(word in str(error) for word in FINAL):
                    raise AssertionError(f"{args}: {error}") from error
                raise
        return wait_for(f"lunarctl {' '.join(map(str, args))}", attempt, RETRY_S, pause=0.3)

    def removed(self, name):
        """A volume that is perhaps there, perhaps attached."""
        self.asked("volume", "detach", name, done_if=("is not attached", "no volume"))
        self.asked("volume", "delete", name, done_if=("no volume",))

    # --- faults ---
    def kill_agent(self, node):
        self.x(node, "pkill -9 -x lunar-agent; true")
        time.sleep(self.luck.random())
        self.start_agent(node)

    def kill_daemon(self, node):
        """All of them, those of merges, too."""
        self.x(node, "pkill -9 -x qemu-storage-da; true")

    def kill_coordinator(self, _):
        for n in NODES:
            if n not in self.down and self.x(n, "pkill -9 -x lunar-coordinat", check=False).returncode == 0:
                self.start_coordinator(n)

    def cut_node(self, node):
        """Power off and on again; its volumes are held until its death is proved, or until it is back."""
        self.lost.update(self.logged(node))
        self.down.add(node)
        self.vm("cut", node)
        for v in self.pool.volumes.values():
            if v.node == node:
                v.node = v.device = None
        self.vm("start", node)
        self.install((node,))
        self.prepare(node)
        self.start_agent(node)
        self.start_coordinator(node)
        self.down.discard(node)
        return node

    def fault(self, node=None, cuts=True):
        victim = node if node and self.luck.random() < 0.7 else self.luck.choice(NODES)
        kinds = [(self.kill_agent, 6), (self.kill_daemon, 8), (self.kill_coordinator, 6)] + [(self.cut_node, 2)] * cuts
        kind = self.luck.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
        with self.one_fault:
            self.note(f"  fault {kind.__name__} node{victim}")
            self.counts[kind.__name__] += 1
            return kind(victim)

    def under_fault(self, operation):
        """With one meanwhile, but no cut: who is attached where must be known."""
        failed = []

        def later():
            try:
                time.sleep(self.luck.random() * 1.5)
                self.fault(cuts=False)
            except Exception as error:  # told where it is waited for
                failed.append(error)
        thread = threading.Thread(target=later)
        thread.start()
        try:
            operation()
        finally:
            thread.join()
        if failed:
            raise failed[0]

    # --- looking ---
    def prepare(self, node):
        for file in ("model_io.py", "layer_check.py"):
            self.vm("push", node, TOP / "tests/e2e" / file, f"/root/{file}")

    def look(self, name, disk, node, path):
        runs = [line.split() for line in self.x(node, f"python3 /root/model_io.py dump {path}", timeout=300).stdout.splitlines()]
        disk.looked(name, [(int(f), int(n), int(i) if i != "?" else "?") for f, n, i in runs])

    def logged(self, node):
        """How often this node's coordinators say that the background has done something."""
        script = "; ".join(f"grep -cE '{pattern}' /run/coordinator.log || true" for pattern in BACKGROUND.values())
        lines = self.x(node, f"touch /run/coordinator.log; {script}").stdout.split()
        return collections.Counter(dict(zip(BACKGROUND, map(int, lines))))

    def background(self):
        return sum((self.logged(n) for n in NODES), self.lost)

    def check_layers(self):
        """qemu-img check of every QCOW2 layer while nobody has any: (layers, leaked clusters). Coordinators must be dead."""
        for n in NODES:
            wait_for(f"node{n} to have no layer", lambda n=n: "lunar" not in self.x(n, "dmsetup ls").stdout, 60)
        found = json.loads(self.x(1, f"python3 /root/layer_check.py lunar-{POOL}", timeout=300).stdout)
        return found["layers"], found["leaked"]
