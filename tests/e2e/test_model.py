# SPDX-License-Identifier: Apache-2.0
"""Random operations on a pool of three nodes, with daemons and nodes killed under them, against a reference model.

Create, write, zero, discard, snapshot, clone, roll back, expand, move, detach, delete volumes and snapshots, in a random order;
meanwhile, at random, kill -9 of an agent, a storage daemon, the coordinator, and a node's power cut. Every volume and snapshot is
compared with the model (model.py) block by block, now and then and at the end; then qemu-img check of every layer, `lunarctl
verify`, and all the space is given back when all is deleted.

Runs for 3 minutes, 30 with LUNAR_TEST_LONG=1; LUNAR_MODEL_SEED repeats a run's choices (not its timing), LUNAR_MODEL_S sets
the seconds. Failure modes: whatever fails, the seed and the last operations are printed, and the nodes' logs are saved.
"""

import collections
import os
import random
import time

from harness import LONG, TOP, Cluster, Failed, expect, run_main, wait_for
from model import Disk, Pool, Wrong

SEED = int(os.environ.get("LUNAR_MODEL_SEED", time.time_ns() % 1000000))
SECONDS = int(os.environ.get("LUNAR_MODEL_S", 1800 if LONG else 180))
MIB_BLOCKS = 256
VOLUMES_MAX, SNAPSHOTS_MAX = 6, 12
NODES = (1, 2, 3)
RETRY_S = 150  # an operation is asked for again that long: a dead node's volumes are free after less

c = Cluster("e2e-model", build="build/dev", lun_size="8G")
r = random.Random(SEED)
pool = Pool()
history = collections.deque(maxlen=40)
counts = collections.Counter()
next_id = 1
down = set()  # nodes whose power is cut


def note(words):
    history.append(f"{time.monotonic() - started:7.1f} {words}")


def ask_node():
    return r.choice([n for n in NODES if n not in down])


def ctl(*args, done_if=()):
    """Asks until it is done: every operation may be repeated. `done_if`: words of a refusal that say that it is done."""
    def attempt():
        try:
            return c.ctl(ask_node(), *args) or True
        except Failed as error:
            if any(word in str(error) for word in done_if):
                return True
            if any(word in str(error) for word in ("INVALID", "UNSUPPORTED", "EXISTS", "usage", "CORRUPT", "METADATA:")):
                raise AssertionError(f"{args}: {error}") from error
            raise
    return wait_for(f"lunarctl {' '.join(map(str, args))}", attempt, RETRY_S, pause=0.3)


# --- operations ---

def name_of(kind):
    global next_id
    next_id += 1
    return f"{kind}{next_id}"


def create():
    name, size = name_of("v"), r.choice((16, 48, 160)) * MIB_BLOCKS
    ctl("volume", "create", name, "--size", size * 4096)
    pool.create(name, size)
    return name


def attach(name, node=None):
    v = pool.volumes[name]
    if v.node:
        return
    node = node or r.choice([n for n in NODES if n not in down])
    v.device = ctl("volume", "attach", name, "--node", f"node{node}")["device"]
    v.node = node


def detach(name):
    v = pool.volumes[name]
    if v.node:
        ctl("volume", "detach", name, done_if=("is not attached",))
        v.node = v.device = None


def pieces(disk):
    global next_id
    found = []
    for _ in range(r.randint(1, 6)):
        next_id += 1
        count = min(r.choice((1, 1, 3, 16, 17, 64, 300, 2048)), disk.size)
        found.append((next_id, r.randint(0, disk.size - count), count))
    return found


def write(name):
    attach(name)
    v = pool.volumes[name]
    todo = pieces(v.disk)
    node = v.node  # a cut takes it away from the model
    p = c.spawn(node, f"python3 /root/model_io.py write {v.device} " + " ".join(f"{i}:{f}:{n}" for i, f, n in todo))
    cut = None
    if r.random() < 0.5:
        time.sleep(r.random())
        cut = fault(node)
    out = p.communicate(timeout=180)[0]
    if cut == node:
        for i, f, n in todo:
            v.disk.perhaps_wrote(i, f, n)
        return
    expect(p.returncode == 0, f"a write to {name} on node{node} failed: {out}")
    for i, f, n in todo:
        v.disk.wrote(i, f, n)


def zero(name):
    attach(name)
    v = pool.volumes[name]
    _, first, count = pieces(v.disk)[0]
    really = r.random() < 0.5
    c.x(v.node, f"blkdiscard {'-z' if really else ''} -o {first * 4096} -l {count * 4096} {v.device}")
    (v.disk.zeroed if really else v.disk.perhaps_discarded)(first, count)


def snapshot(name):
    s = name_of("s")
    ctl("snapshot", "create", name, s)
    pool.snapshot(name, s)


def clone():
    name = name_of("c")
    if pool.snapshots and r.random() < 0.7:
        s = r.choice(sorted(pool.snapshots))
        ctl("volume", "create", name, "--from-snapshot", s)
        pool.clone(s, name)
    else:
        v = r.choice(sorted(pool.volumes))
        ctl("volume", "create", name, "--from-volume", v)
        pool.clone_volume(v, name)


def rollback(name):
    of = [s for s, snap in pool.snapshots.items() if snap.volume == name]
    if not of:
        return
    s = r.choice(of)
    if pool.snapshots[s].disk.size != pool.volumes[name].disk.size:
        return
    detach(name)
    ctl("volume", "rollback", name, s)
    pool.rollback(name, s)


def expand(name):
    v = pool.volumes[name]
    size = v.disk.size + r.choice((8, 64)) * MIB_BLOCKS
    ctl("volume", "expand", name, size * 4096)
    v.disk.size = size


def move(name):
    v = pool.volumes[name]
    others = [n for n in NODES if n not in down and n != v.node]
    detach(name)
    attach(name, r.choice(others))


def delete_volume(name):
    detach(name)
    ctl("volume", "delete", name, done_if=("no volume",))
    del pool.volumes[name]
    for snap in pool.snapshots.values():
        if snap.volume == name:
            snap.volume = None


def delete_snapshot():
    if pool.snapshots:
        s = r.choice(sorted(pool.snapshots))
        ctl("snapshot", "delete", s, done_if=("no snapshot",))
        del pool.snapshots[s]


# --- faults ---

def kill_agent(node):
    c.x(node, "pkill -9 -x lunar-agent")
    time.sleep(r.random())
    c.start_agent(node)


def kill_daemon(node):
    c.x(node, "pkill -9 -x qemu-storage-da; true")


def kill_coordinator(_):
    for n in NODES:
        if n not in down and c.x(n, "pkill -9 -x lunar-coordinat", check=False).returncode == 0:
            c.start_coordinator(n)


def cut_node(node):
    """Power off and on again; its volumes are held until its death is proved, or until it is back."""
    down.add(node)
    c.vm("cut", node)
    for v in pool.volumes.values():
        if v.node == node:
            v.node = v.device = None
    c.vm("start", node)
    c.install((node,))
    prepare(node)
    c.start_agent(node)
    c.start_coordinator(node)
    down.discard(node)
    return node


def fault(node):
    victim = node if r.random() < 0.7 else r.choice(NODES)
    kinds = [(kill_agent, 6), (kill_daemon, 8), (kill_coordinator, 6), (cut_node, 1)]
    kind = r.choices([k for k, _ in kinds], [w for _, w in kinds])[0]
    note(f"  fault {kind.__name__} node{victim}")
    counts[kind.__name__] += 1
    return kind(victim)


# --- looking ---

def look(name, disk, node, device):
    runs = [line.split() for line in c.x(node, f"python3 /root/model_io.py dump {device}", timeout=300).stdout.splitlines()]
    disk.looked(name, [(int(f), int(n), int(i) if i != "?" else "?") for f, n, i in runs])


def look_at_volume(name):
    attach(name)
    v = pool.volumes[name]
    look(name, v.disk, v.node, v.device)


def look_at_snapshot(s):
    """By a clone: a snapshot itself is never attached."""
    name = name_of("look")
    ctl("volume", "create", name, "--from-snapshot", s)
    pool.clone(s, name)
    look_at_volume(name)
    pool.snapshots[s].disk = Disk(pool.snapshots[s].disk.size, pool.volumes[name].disk.blocks)
    delete_volume(name)


# --- the run ---

def step():
    names = sorted(pool.volumes)
    choices = [(lambda: write(r.choice(names)), 30), (lambda: zero(r.choice(names)), 4), (lambda: move(r.choice(names)), 6),
               (lambda: detach(r.choice(names)), 4), (lambda: look_at_volume(r.choice(names)), 6),
               (lambda: expand(r.choice(names)), 3), (lambda: rollback(r.choice(names)), 5), (delete_snapshot, 6)]
    if len(names) < VOLUMES_MAX:
        choices += [(create, 5), (clone, 8)]
    if len(pool.snapshots) < SNAPSHOTS_MAX:
        choices.append((lambda: snapshot(r.choice(names)), 15))
    if len(names) > 2:
        choices.append((lambda: delete_volume(r.choice(names)), 4))
    if pool.snapshots:
        choices.append((lambda: look_at_snapshot(r.choice(sorted(pool.snapshots))), 3))
    return r.choices([f for f, _ in choices], [w for _, w in choices])[0]


def traced(function):
    """Operations say in the history what they do."""
    def wrapper(*args, **kw):
        note(f"{function.__name__} {' '.join(map(str, args))}")
        counts[function.__name__] += 1
        return function(*args, **kw)
    return wrapper


for _name in ("create", "write", "zero", "snapshot", "clone", "rollback", "expand", "move", "detach", "attach", "delete_volume",
              "delete_snapshot", "look_at_volume", "look_at_snapshot"):
    globals()[_name] = traced(globals()[_name])


def prepare(node):
    c.vm("push", node, TOP / "tests/e2e/model_io.py", "/root/model_io.py")


def pool_comes_up():
    c.pool_up(coordinators=NODES)
    for n in NODES:
        prepare(n)
    c.free = c.ctl(1, "status")["vg_free"]


def random_operations_lose_no_byte():
    end = time.monotonic() + SECONDS
    try:
        create()
        while time.monotonic() < end:
            step()()
        for name in sorted(pool.volumes):
            look_at_volume(name)
        for s in sorted(pool.snapshots):
            look_at_snapshot(s)
    except (Failed, Wrong, AssertionError, KeyError) as error:
        print(f"# seed {SEED}; the last operations:")
        for line in history:
            print(f"# {line}")
        raise Failed(f"seed {SEED}: {type(error).__name__}: {error}") from error
    return f"seed {SEED}, " + ", ".join(f"{n} {k}" for k, n in sorted(counts.items()))


def the_pool_verifies():
    found = wait_for("a clean verify", lambda: (f := c.ctl(1, "verify")) and not f["findings"] and f, 30)
    return f"{len(found)} facts"


def everything_can_be_deleted_and_the_space_is_back():
    for name in sorted(pool.volumes):
        delete_volume(name)
    while pool.snapshots:
        delete_snapshot()

    def is_back():
        s = c.ctl(1, "status")
        expect(s["vg_free"] == c.free, f"{s['vg_free']} bytes free of {c.free}: {c.ctl(1, 'volume', 'tree')}")
        return True
    wait_for("all of the space", is_back, 90)


started = time.monotonic()
run_main(c, [pool_comes_up, random_operations_lose_no_byte, the_pool_verifies, everything_can_be_deleted_and_the_space_is_back])
