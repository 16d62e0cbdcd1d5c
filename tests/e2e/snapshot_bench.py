# SPDX-License-Identifier: Apache-2.0
"""Runs in a node of the test bed: what a snapshot costs whoever writes to the volume.

usage: snapshot_bench.py SNAPSHOTS    prints one JSON object.
Happy path: a volume of one layer on /dev/vdb is attached by stack_driver; a writer of 4 KiB blocks notes the time of each
write while leaves are put over it; at some depths, on a leaf to which nothing was written, throughput is measured. Then the
same throughputs with dm-snapshot and dm-thin, where the kernel has them. Failure modes: a command or a write that fails ends
it with exit 1 and the reason; what the kernel lacks is null.
"""

import json
import mmap
import os
import random
import statistics
import subprocess
import sys
import threading
import time

MIB = 1 << 20
LAYER = 32 * MIB
FIRST = 256 * MIB
SIZE = 1024 * MIB
REGION = 16 * MIB
CLUSTER = 65536
DEVICE = "/dev/lunar/test/bench"
VOLUME = "01234567-89ab-4def-8000-000000000001"
ATTACHMENT = "a7000000-0000-4000-8000-000000000001"
DEPTHS = (0, 10, 100, 200)
LOG = "/run/bench.log"


def run(*argv, check=True):
    with open(LOG, "ab") as log:
        done = subprocess.run(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    if check and done.returncode != 0:
        with open(LOG, errors="replace") as log:
            sys.exit("%s: exit %d: %s" % (" ".join(argv)[:60], done.returncode, log.read()[-600:]))
    return done.returncode == 0


def driver(command, layers):
    spec = ["device=/dev/vdb", "size=%d" % SIZE, "volume=" + VOLUME, "attachment=" + ATTACHMENT, "name=bench"]
    for i in range(layers - 1, -1, -1):
        spec += ["layer=%d" % i, "segment=%d:%d" % (FIRST + i * LAYER, LAYER), "max=%d" % (66 << 40)]
    run("stack_driver", command, *spec)


def make_blank():
    """An empty QCOW2 of the volume's size, as a format job makes it: its first clusters."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=64k", "/run/blank", str(SIZE))
    with open("/run/blank", "rb") as f:
        return f.read().ljust(MIB, b"\0")


def put_blank(blank, index):
    buffer = mmap.mmap(-1, MIB)
    buffer[:] = blank
    fd = os.open("/dev/vdb", os.O_RDWR | os.O_DIRECT)
    os.pwrite(fd, buffer, FIRST + index * LAYER)
    os.close(fd)


class Writer(threading.Thread):
    """4 KiB writes one after the other to the first MiB; `ends` are the times at which they ended."""

    def __init__(self, device):
        super().__init__(daemon=True)
        self.fd = os.open(device, os.O_RDWR | os.O_DIRECT)
        self.ends, self.stop, self.error = [], False, None

    def run(self):
        buffer = mmap.mmap(-1, 4096)
        try:
            while not self.stop:
                os.pwrite(self.fd, buffer, random.randrange(MIB // 4096) * 4096)
                self.ends.append(time.monotonic())
        except OSError as e:
            self.error = e

    def longest_gap(self, since, until):
        ends = [t for t in self.ends if since - 1 < t < until + 1]
        return max((b - a for a, b in zip(ends, ends[1:]) if b > since and a < until), default=0.0)


def throughput(device, size, offsets, seconds):
    """(writes per second); each offset once, or over and over for so long."""
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, size)
    n, begin = 0, time.monotonic()
    while True:
        for offset in offsets:
            os.pwrite(fd, buffer, offset)
            n += 1
        took = time.monotonic() - begin
        if took >= seconds:
            os.close(fd)
            return n / took


def measure(device):
    """On a leaf to which nothing was written: the first 4 KiB of each cluster, then whole clusters again and again."""
    offsets = list(range(MIB, REGION, CLUSTER))
    random.Random(1).shuffle(offsets)
    first = throughput(device, 4096, offsets, 0)
    for offset in offsets[:8]:  # the rest of a warm-up that is not counted
        throughput(device, CLUSTER, [offset], 0)
    again = throughput(device, CLUSTER, offsets, 3)
    return {"first_4k_per_s": round(first, 1), "rewrite_64k_mib_per_s": round(again * CLUSTER / MIB, 2)}


def bench_lunar(snapshots):
    blank = make_blank()
    pauses, rows = [], {}
    put_blank(blank, 0)
    driver("attach", 1)
    for n in range(snapshots + 1):
        if n > 0:
            put_blank(blank, n)
            writer = Writer(DEVICE)
            writer.start()
            time.sleep(0.3)  # of calm, to be compared with
            since = time.monotonic()
            driver("overlay", n + 1)
            until = time.monotonic()
            time.sleep(0.05)
            writer.stop = True
            writer.join()
            os.close(writer.fd)
            if writer.error:
                sys.exit("a write failed: %s" % writer.error)
            pauses.append((writer.longest_gap(since, until) * 1000,
                           writer.longest_gap(since - 0.25, since) * 1000))
        if n in DEPTHS:
            rows[str(n)] = measure(DEVICE)
            print("# %d snapshots: %s" % (n, rows[str(n)]), file=sys.stderr, flush=True)
    agent = []
    with open(LOG, errors="replace") as log:
        for line in log:
            if "stack_overlaid" in line:
                agent.append(int(line.split("pause_us=")[1].split()[0]) / 1000)
    begin = time.monotonic()
    run("stack_driver", "restart", ATTACHMENT) if kill_daemon() else None
    restart = time.monotonic() - begin
    run("stack_driver", "teardown")
    return pauses, agent, rows, restart


def kill_daemon():
    with open("/run/lunar/attach/%s/qsd.process" % ATTACHMENT) as f:
        os.kill(int(f.read().split()[0]), 9)
    return True


# ---- what the kernel has of its own, on the same LUN ----


def table(name, text, *more):
    subprocess.run(["dmsetup", "create", name, *more], input=text.encode(), check=True, stdout=subprocess.DEVNULL)


def bench_classic(depths):
    """dm-snapshot: the origin is written, each snapshot gets what is overwritten copied into a store of its own."""
    if not run("modprobe", "dm-snapshot", check=False):
        return None
    origin, rows, made = 512, {}, 0
    table("c-real", "0 %d linear /dev/vdb %d\n" % (origin * 2048, 2048 * 256))
    table("c-origin", "0 %d snapshot-origin /dev/mapper/c-real\n" % (origin * 2048))
    for depth in depths:
        while made < depth:
            at = 1024 + made * 20
            table("c-cow%d" % made, "0 %d linear /dev/vdb %d\n" % (20 * 2048, at * 2048))
            run("dd", "if=/dev/zero", "of=/dev/mapper/c-cow%d" % made, "bs=64k", "count=1", "oflag=direct")
            table("c-snap%d" % made, "0 %d snapshot /dev/mapper/c-real /dev/mapper/c-cow%d P 128\n" % (origin * 2048, made))
            made += 1
        rows[str(depth)] = measure("/dev/mapper/c-origin")
    return rows


def bench_thin(depths):
    if not run("modprobe", "dm-thin-pool", check=False):
        return None
    rows, made, size = {}, 0, SIZE // 512
    table("t-meta", "0 %d linear /dev/vdb %d\n" % (64 * 2048, 128 * 2048))
    run("dd", "if=/dev/zero", "of=/dev/mapper/t-meta", "bs=1M", "count=1", "oflag=direct")
    table("t-data", "0 %d linear /dev/vdb %d\n" % (4096 * 2048, 256 * 2048))
    table("t-pool", "0 %d thin-pool /dev/mapper/t-meta /dev/mapper/t-data 128 0\n" % (4096 * 2048))
    run("dmsetup", "message", "/dev/mapper/t-pool", "0", "create_thin 0")
    table("t-vol", "0 %d thin /dev/mapper/t-pool 0\n" % size)
    for depth in depths:
        while made < depth:
            run("dmsetup", "suspend", "t-vol")
            run("dmsetup", "message", "/dev/mapper/t-pool", "0", "create_snap %d 0" % (made + 1))
            run("dmsetup", "resume", "t-vol")
            made += 1
        rows[str(depth)] = measure("/dev/mapper/t-vol")
    return rows


def relative(rows):
    return {d: {k: round(v / rows["0"][k], 3) for k, v in r.items()} for d, r in rows.items()} if rows else None


def main(snapshots):
    depths = [d for d in DEPTHS if d <= snapshots]
    pauses, agent, rows, restart = bench_lunar(snapshots)
    seen = sorted(p for p, _ in pauses)
    calm = sorted(c for _, c in pauses)
    agent.sort()
    thin = bench_thin(depths)
    run("sh", "-c", "for d in t-vol t-pool t-data t-meta; do dmsetup remove $d; done", check=False)
    classic = bench_classic([d for d in depths if d <= 100])
    print(json.dumps({
        "snapshots": snapshots,
        "pause_p50_ms": round(seen[len(seen) // 2], 1),
        "pause_max_ms": round(seen[-1], 1),
        "pause_p50_ms_at": {str(d): round(statistics.median(p for p, _ in pauses[d - 10:d]), 1) for d in depths if d},
        "calm_gap_p50_ms": round(calm[len(calm) // 2], 1),
        "calm_gap_max_ms": round(calm[-1], 1),
        "switch_p50_ms": round(agent[len(agent) // 2], 1),
        "switch_max_ms": round(agent[-1], 1),
        "restart_s": round(restart, 1),
        "lunar": rows, "lunar_relative": relative(rows),
        "lvm_thin": thin, "lvm_thin_relative": relative(thin),
        "lvm_classic": classic, "lvm_classic_relative": relative(classic),
    }))


main(int(sys.argv[1]))
