# SPDX-License-Identifier: Apache-2.0
"""Random operations on a pool of three nodes, with daemons and nodes killed under them, against a reference model.

Create, write, zero, discard, trim, snapshot one volume or several at one instant, also under writers, clone, roll back, expand,
move, detach, import, export, delete volumes, thin and thick, and snapshots, in a random order, while layers are merged and
trimmed in the background; meanwhile, at random, kill -9 of an agent, a storage daemon, the coordinator, and a node's power cut.
Every volume and snapshot is compared with the model (model.py) block by block, now and then and at the end; then merges
that are certain to come, `lunarctl verify`, qemu-img check of every layer, and all the space is back when all is deleted.

Runs for 3 minutes, 30 with LUNAR_TEST_LONG=1; LUNAR_MODEL_SEED repeats a run's choices (not its timing), LUNAR_MODEL_S sets
the seconds. Failure modes: whatever fails, the seed and the last operations are printed, and the nodes' logs are saved.
"""

import collections
import os
import subprocess
import time

from harness import LONG, Failed, expect, run_main, wait_for
from model import Disk, Order, Pool, Wrong
from model_bed import NODES, RETRY_S, Bed

SEED = int(os.environ.get("LUNAR_MODEL_SEED", time.time_ns() % 1000000))
SECONDS = int(os.environ.get("LUNAR_MODEL_S", 1800 if LONG else 180))
MIB_BLOCKS = 256
VOLUMES_MAX, THICK_MAX, SNAPSHOTS_MAX = 7, 2, 12
SIZE_MAX = 480 * MIB_BLOCKS  # 512 MiB is where layers of before and after are not merged: test_relink has no end then
SETTLES_S = 240  # a merge that failed is tried again after 30 s, and again after a minute

history = collections.deque(maxlen=60)
started = time.monotonic()


def note(words):
    """Of all of them in the logs' folder, of the last ones in what is printed."""
    history.append(f"{time.monotonic() - started:7.1f} {words}")
    c.logs.mkdir(parents=True, exist_ok=True)
    with open(c.logs / "operations.log", "a", encoding="utf-8") as log:
        print(history[-1], file=log)


pool = Pool()
c = Bed(pool, SEED, note)
r, luck, counts, ctl = c.r, c.luck, c.counts, c.asked
next_id = 1


# --- operations ---

def name_of(kind):
    global next_id
    next_id += 1
    return f"{kind}{next_id}"


def create():
    name, size = name_of("v"), r.choice((16, 48, 160, 320)) * MIB_BLOCKS
    ctl("volume", "create", name, "--size", size * 4096)
    pool.create(name, size)


def create_thick():
    name, size = name_of("t"), r.choice((16, 50)) * MIB_BLOCKS
    ctl("volume", "create", name, "--thick", "--size", size * 4096)
    pool.create(name, size, thick=True)


def attach(name, node=None):
    v = pool.volumes[name]
    if v.node:
        return
    node = node or r.choice([n for n in NODES if n not in c.down])
    v.device = ctl("volume", "attach", name, "--node", f"node{node}")["device"]
    v.node = node


def detach(name):
    v = pool.volumes[name]
    if v.node:
        ctl("volume", "detach", name, done_if=("is not attached",))
        v.node = v.device = None


def pieces(disk, most=6, counts_of=(1, 1, 3, 16, 17, 64, 300, 2048)):
    """(id, first, count) of new writes."""
    global next_id
    found = []
    for _ in range(r.randint(1, most)):
        next_id += 1
        count = min(r.choice(counts_of), disk.size)
        found.append((next_id, r.randint(0, disk.size - count), count))
    return found


def words_of(todo):
    return " ".join(":".join(map(str, piece)) for piece in todo)


def write(name, todo=None):
    attach(name)
    v = pool.volumes[name]
    todo = todo or pieces(v.disk)
    node = v.node  # a cut takes it away from the model
    p = c.spawn(node, f"python3 /root/model_io.py write {v.device} {words_of(todo)}")
    cut = None
    if luck.random() < 0.5:
        time.sleep(luck.random())
        cut = c.fault(node)
    out = p.communicate(timeout=180)[0]
    if cut == node:
        for i, f, n in todo:
            v.disk.perhaps_wrote(i, f, n)
        return
    expect(p.returncode == 0, f"a write to {name} on node{node} failed: {out}")
    for i, f, n in todo:
        v.disk.wrote(i, f, n)


def zero(name, most=2048):
    attach(name)
    v = pool.volumes[name]
    _, first, count = pieces(v.disk, 1, (1, 16, 300, most))[0]
    really = r.random() < 0.5
    c.x(v.node, f"blkdiscard {'-z' if really else ''} -o {first * 4096} -l {count * 4096} {v.device}")
    (v.disk.zeroed if really else v.disk.perhaps_discarded)(first, count)


def trim(name):
    """What was written and discarded at the end of its layers is given back."""
    disk = pool.volumes[name].disk
    write(name, pieces(disk, 1, (2048, 8192)))
    attach(name)
    zero(name, most=20000)
    detach(name)
    freed = ctl("volume", "trim", name)["freed"]
    counts["MiB given back"] += freed >> 20


def begin_writer(node, volumes):
    """A slow one on a node, who waits for each of his pieces: (process, [(volume, id, first, count)])."""
    todo = [(*piece, r.randrange(len(volumes))) for piece in
            pieces(Disk(min(pool.volumes[v].disk.size for v in volumes)), 80, (1, 1, 1, 3, 17, 64))]
    devices = ",".join(pool.volumes[v].device for v in volumes)
    p = c.spawn(node, f"python3 /root/model_io.py slowly {devices} {words_of(todo)}")
    return p, [(volumes[k], i, first, count) for i, first, count, k in todo]


def begin_writers(names):
    """On each node that has some of the volumes."""
    at = collections.defaultdict(list)
    for name in names:
        if r.random() < 0.7:
            attach(name)
            at[pool.volumes[name].node].append(name)
    found = [begin_writer(node, volumes) for node, volumes in at.items()]
    time.sleep(luck.random())
    return found


def end_writers(writers, snapshot_of):
    """Any of their pieces may have been written before the instant; afterwards all of them are."""
    for p, todo in writers:
        out = p.communicate(timeout=180)[0]
        expect(p.returncode == 0, f"a write beside a snapshot failed: {out}")
        for volume, i, first, count in todo:
            pool.snapshots[snapshot_of[volume]].disk.perhaps_wrote(i, first, count)
        pool.orders.append(Order([(snapshot_of[volume], i, first, count) for volume, i, first, count in todo]))
    for _, todo in writers:
        for volume, i, first, count in todo:
            pool.volumes[volume].disk.wrote(i, first, count)


def are_made(names):
    """A request whose answer was lost and that is asked for anew: its snapshots are all there, or none."""
    there = [s for s in ctl("snapshot", "list").get("snapshots", []) if s["name"] in names]
    if there and (len(there) < len(names) or any(s["state"] != "ready" for s in there)):
        raise Failed(f"a half-made group: {there}")
    expect(len({s.get("group") for s in there}) <= 1, f"two groups: {there}")
    return bool(there)


def take(names):
    """Snapshots of one instant."""
    snapshot_of = {name: name_of("s") for name in names}
    writers = begin_writers(names) if r.random() < 0.6 else []
    pairs = [word for pair in snapshot_of.items() for word in pair]

    def attempt():
        return are_made(snapshot_of.values()) or c.ctl(c.up_node(), "snapshot", "create", *pairs)
    wait_for(f"snapshots {pairs}", attempt, RETRY_S, pause=0.3)
    for name, s in snapshot_of.items():
        pool.snapshot(name, s)
    end_writers(writers, snapshot_of)
    if r.random() < 0.15:
        for s in snapshot_of.values():
            look_at_snapshot(s)
        for order in pool.orders[-len(writers):] if writers else []:
            order.check(pool.snapshots)


def snapshot(name):
    take([name])


def group():
    take(r.sample(pool.thin(), min(len(pool.thin()), r.choice((2, 3)))))


def clone():
    name, more = name_of("c"), r.choice((0, 0, 0, 8)) * MIB_BLOCKS
    if pool.snapshots and r.random() < 0.7:
        kind, source, make = "snapshot", r.choice(sorted(pool.snapshots)), pool.clone
        size = pool.snapshots[source].disk.size + more
    else:
        kind, source, make = "volume", r.choice(pool.thin()), pool.clone_volume
        size = pool.volumes[source].disk.size + more
    ctl("volume", "create", name, f"--from-{kind}", source, *(["--size", size * 4096] if more else []))
    make(source, name, size)


def rollback(name):
    of = [s for s, snap in pool.snapshots.items() if snap.volume == name]
    if not of:
        return
    s = r.choice(of)
    detach(name)
    ctl("volume", "rollback", name, s)
    pool.rollback(name, s)


def expand(name):
    v = pool.volumes[name]
    size = v.disk.size + r.choice((8, 64)) * MIB_BLOCKS
    if size > SIZE_MAX:
        return
    if r.random() < 0.5:
        (detach if v.node else attach)(name)
    ctl("volume", "expand", name, size * 4096)
    v.disk.size = size


def move(name):
    v = pool.volumes[name]
    others = [n for n in NODES if n not in c.down and n != v.node]
    detach(name)
    attach(name, r.choice(others))


def import_image():
    size, kind, thick = r.choice((4, 20)) * MIB_BLOCKS, r.choice(("raw", "qcow2", "vmdk")), r.random() < 0.3
    todo = pieces(Disk(size))
    name, node = name_of("i"), c.up_node()
    convert = "" if kind == "raw" else f"&& qemu-img convert -f raw -O {kind} /run/image.raw /run/image.{kind}"
    c.x(node, f"rm -f /run/image.* && python3 /root/model_io.py make /run/image.raw {size} {words_of(todo)} {convert}")

    def attempt():
        try:
            return c.x(node, f"lunarctl volume import /run/image.{kind} {name} --format {kind} {'--thick' if thick else ''}")
        except Failed:
            counts["failed imports"] += 1
            c.removed(name)
            raise
    wait_for(f"the import of {name}", attempt, RETRY_S, pause=0.3)
    c.x(node, "rm -f /run/image.*")
    pool.create(name, size, thick)
    for i, first, count in todo:
        pool.volumes[name].disk.wrote(i, first, count)


def export():
    """To a file, whose bytes are compared."""
    snapshots = [s for s, snap in pool.snapshots.items() if snap.disk.size <= 80 * MIB_BLOCKS]
    volumes = [v for v, volume in pool.volumes.items() if volume.disk.size <= 80 * MIB_BLOCKS]
    if not snapshots + volumes:
        return
    name = r.choice(sorted(snapshots + volumes))
    disk = (pool.snapshots if name in pool.snapshots else pool.volumes)[name].disk
    if name in pool.volumes and pool.volumes[name].thick:
        detach(name)
    kind, node, of = r.choice(("raw", "qcow2", "vmdk")), c.up_node(), "--snapshot" if name in pool.snapshots else ""

    def attempt():
        try:
            c.x(node, "rm -rf /run/out*")
            return c.x(node, f"lunarctl volume export {name} /run/out --format {kind} {of}")
        except Failed:
            counts["failed exports"] += 1
            for v in ctl("volume", "list").get("volumes", []):
                if v["name"].startswith("export-of-"):
                    c.removed(v["name"])
            if name in pool.volumes and pool.volumes[name].thick:
                ctl("volume", "detach", name, done_if=("is not attached",))
            raise
    wait_for(f"the export of {name}", attempt, RETRY_S, pause=0.3)
    c.x(node, f"qemu-img convert -f {kind} -O raw /run/out /run/out.raw")
    c.look(f"{name}, exported as {kind}", disk, node, "/run/out.raw")
    c.x(node, "rm -rf /run/out*")


def delete_volume(name):
    detach(name)
    ctl("volume", "delete", name, done_if=("no volume",))
    del pool.volumes[name]
    for snap in pool.snapshots.values():
        if snap.volume == name:
            snap.volume = None


def delete_snapshot(s=None):
    s = s or r.choice(sorted(pool.snapshots))
    ctl("snapshot", "delete", s, done_if=("no snapshot",))
    del pool.snapshots[s]


def layers(name):
    """Snapshots of which all but the last go again, in any order: what is below it is to be merged."""
    before = set(pool.snapshots)
    for _ in range(r.choice((3, 4))):
        write(name)
        take([name])
    mine = sorted(set(pool.snapshots) - before, key=lambda s: int(s[1:]))[:-1]
    for s in r.sample(mine, len(mine)):
        delete_snapshot(s)
    if luck.random() < 0.6:  # while they are
        time.sleep(luck.random() * 3)
        c.fault()


# --- looking ---

def look_at_volume(name):
    attach(name)
    v = pool.volumes[name]
    c.look(name, v.disk, v.node, v.device)


def look_at_snapshot(s):
    """By a clone: a snapshot itself is never attached."""
    name = name_of("look")
    ctl("volume", "create", name, "--from-snapshot", s)
    pool.clone(s, name)
    look_at_volume(name)
    pool.snapshots[s].disk = Disk(pool.snapshots[s].disk.size, pool.volumes[name].disk.blocks)
    delete_volume(name)


def look_at_all():
    for name in sorted(pool.volumes):
        look_at_volume(name)
    for s in sorted(pool.snapshots):
        look_at_snapshot(s)
    pool.check_orders()


# --- the run ---

def step():
    names, thin = sorted(pool.volumes), pool.thin()
    choices = [(lambda: write(r.choice(names)), 26), (lambda: zero(r.choice(names)), 4), (lambda: move(r.choice(names)), 6),
               (lambda: detach(r.choice(names)), 4), (lambda: look_at_volume(r.choice(names)), 6),
               (lambda: expand(r.choice(names)), 4), (export, 3)]
    if len(names) < VOLUMES_MAX:
        choices += [(create, 5), (import_image, 3)]
        if len(names) - len(thin) < THICK_MAX:
            choices.append((create_thick, 3))
    if thin:
        choices += [(lambda: rollback(r.choice(thin)), 5), (lambda: trim(r.choice(thin)), 3)]
        if len(names) < VOLUMES_MAX:
            choices.append((clone, 8))
        if len(pool.snapshots) < SNAPSHOTS_MAX:
            choices += [(lambda: snapshot(r.choice(thin)), 10), (lambda: layers(r.choice(thin)), 6)]
            if len(thin) > 1:
                choices.append((group, 5))
    if len(names) > 2:
        choices.append((lambda: delete_volume(r.choice(names)), 4))
    if pool.snapshots:
        choices += [(delete_snapshot, 8), (lambda: look_at_snapshot(r.choice(sorted(pool.snapshots))), 3)]
    return r.choices([f for f, _ in choices], [w for _, w in choices])[0]


def traced(function):
    """Operations say in the history what they do."""
    def wrapper(*args, **kw):
        note(f"{function.__name__} {' '.join(map(str, args))}")
        counts[function.__name__] += 1
        return function(*args, **kw)
    return wrapper


for _name in ("create", "create_thick", "write", "zero", "trim", "snapshot", "group", "layers", "clone", "rollback", "expand", "move",
              "detach", "attach", "delete_volume", "delete_snapshot", "import_image", "export", "look_at_volume", "look_at_snapshot"):
    globals()[_name] = traced(globals()[_name])


def told(function):
    """What fails says after which operations."""
    try:
        return function()
    except (Failed, Wrong, AssertionError, KeyError, subprocess.TimeoutExpired) as error:
        print(f"# seed {SEED}; the last operations:")
        for line in history:
            print(f"# {line}")
        raise Failed(f"seed {SEED}: {type(error).__name__}: {error}") from error


def operate():
    end = time.monotonic() + SECONDS
    create()
    while time.monotonic() < end:
        if luck.random() < 0.25:
            c.under_fault(step())
        else:
            step()()


def merge_some():
    """A chain that nobody disturbs, of a volume that stays attached: all of its layers without a name become one."""
    ctl("volume", "create", "chain", "--size", 64 * MIB_BLOCKS * 4096)
    pool.create("chain", 64 * MIB_BLOCKS)
    before = c.background()
    kill = c.leader()[0]  # the next one has no failed merges of before in mind, and no pause after them
    c.x(kill, "lunarctl coordinator resign")
    c.start_coordinator(kill)
    attach("chain")
    for i in range(4):
        v = pool.volumes["chain"]
        todo = pieces(v.disk)
        c.x(v.node, f"python3 /root/model_io.py write {v.device} {words_of(todo)}")
        for piece in todo:
            v.disk.wrote(*piece)
        ctl("snapshot", "create", "chain", f"link{i}")
        pool.snapshot("chain", f"link{i}")
    for i in (1, 0, 2):
        delete_snapshot(f"link{i}")

    def merged():
        now = c.background() - before
        return now["merges"] >= 2 and now["relinks"] >= 1 and now
    return wait_for("two merges and a relink", merged, SETTLES_S, pause=2)


# --- tests ---

def pool_comes_up():
    c.pool_up(coordinators=NODES)
    for n in NODES:
        c.prepare(n)
    c.free = c.ctl(1, "status")["vg_free"]


def random_operations_are_all_carried_out():
    told(operate)
    shown = counts + c.background()
    return f"seed {SEED}, " + ", ".join(f"{n} {k}" for k, n in sorted(shown.items()))


def layers_without_a_name_are_merged():
    now = told(merge_some)
    return ", ".join(f"{n} {k}" for k, n in sorted(now.items()))


def every_volume_and_every_snapshot_shows_what_was_written():
    told(look_at_all)
    return f"{len(pool.volumes)} volumes, {len(pool.snapshots)} snapshots, {len(pool.orders)} writers beside snapshots"


def the_pool_verifies():
    wait_for("a clean verify", lambda: not c.ctl(1, "verify")["findings"], 30)


def every_layer_is_sound():
    for name in sorted(pool.volumes):
        detach(name)
    for n in NODES:
        c.x(n, "pkill -9 -x lunar-coordinat; true")  # so that nothing is merged or trimmed meanwhile
    found, leaked = c.check_layers()
    for n in NODES:
        c.start_coordinator(n)
    c.wait_leader()
    return f"{found} layers, {leaked} leaked clusters"


def everything_can_be_deleted_and_the_space_is_back():
    for name in sorted(pool.volumes):
        delete_volume(name)
    for s in r.sample(sorted(pool.snapshots), len(pool.snapshots)):
        delete_snapshot(s)

    def is_back():
        s = c.ctl(1, "status")
        expect(s["vg_free"] == c.free, f"{s['vg_free']} bytes free of {c.free}: {c.ctl(1, 'volume', 'tree')}")
        return True
    wait_for("all of the space", is_back, 90)


run_main(c, [pool_comes_up, random_operations_are_all_carried_out, layers_without_a_name_are_merged,
             every_volume_and_every_snapshot_shows_what_was_written, the_pool_verifies, every_layer_is_sound,
             everything_can_be_deleted_and_the_space_is_back])
