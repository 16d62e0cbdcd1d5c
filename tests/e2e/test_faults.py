# SPDX-License-Identifier: Apache-2.0
"""Every way to lose a node, with and without exported volumes: nobody writes who may not.

usage: test_faults.py [--row NAME]... [--list] [--keep]

A row is a fault of a victim that has a thick and a thin volume attached, each under a writer that stamps every sector
(stamper.c) with at least four writes in flight, or has nothing attached (NAME ends in -bare). Node 1 leads, node 2 is
the new owner, each other node is the victim of one row at a time.

Happy path of a row whose node dies: the fault; the new owner asks for the volumes again and again and gets them when the
victim's life is proved over; it writes each sector once; the fault is healed or the node thawed; 60 s later the LUN's raw
file is read from here: every sector carries the owner's stamp. A node that must be reset was reset before the owner
got anything; one that can fence itself is not reset, and joins again by itself. In rows where nobody died nothing moved
and the writer met no error. By default one row runs and the look at the disk comes after 15 s; all of them with LUNAR_TEST_LONG=1. A table closes the run.

Failure modes: a row fails too if no write was in flight at the fault. The rows "frozen" and "paused" cannot be closed
without SCSI reservations (SAFETY 8): stray sectors are counted there and shown with their window, and are no failure.
"""

import argparse
import concurrent.futures
import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple

from harness import DEAD_S, DEVICE, LONG, POOL, TOP, Cluster, Failed, N, Skip, W, fatal, wait_for
import stamps

sys.path.insert(0, str(TOP / "tools"))
sys.dont_write_bytecode = True
from vmlib import Failure, lun, remote  # noqa: E402
from vmlib.cluster import Cluster as Bed  # noqa: E402

LEADER, OWNER, VICTIMS = 1, 2, (3, 4, 5)
# A renewal lasts 2N; sanlock of the others looks every 2N, and DEAD is asked for once a second: 29 to 32 s were measured.
MOVED_S = DEAD_S + 2 * 2 * N + 5
RESET_SLACK_S = 3  # the emulated node's own slowness between the watchdog's second and the end of its QEMU
TAKEN_S = 3  # from DEAD to the grants' end
STAYS_S = DEAD_S + 10  # how long "nothing moved" is watched
WDMD_S = 60  # softdog's own time-out when wdmd no longer feeds it, at most
INSPECT_S = 60 if LONG else 15
REGION = 1 << 20
VICTIM_IOPS = 200  # of its LUN: the writers then always wait in QEMU, and leave the nodes' processors alone
SECOND = "/dev/vdc"


class Nodes(Cluster):
    """The cluster with commands run in this process (a row asks often) and streams of lines."""

    def up(self):
        self.vm("down", check=False)
        self.vm("up", "--nodes", self.nodes, "--lun-size", self.lun_size, "--no-sanlock", "--io-timeout", N,
                "--watchdog-timeout", W, "--second-lun", "2G", "--net-cut", timeout=900)
        self.lun_path = self.vm("lun-path").stdout.strip()

    def install(self, nodes, sanlock=True):
        super().install(nodes, sanlock)
        for n in nodes:
            self.vm("push", n, self.build / "stamper", "/usr/sbin/stamper")

    def node(self, n):
        return Bed(self.name).node(str(n))

    def run(self, n, script, on_out, on_err, timeout=None):
        try:
            return remote.call(self.node(n), ["bash", "-c", script], None, on_out, on_err, timeout)
        except Failure as error:
            on_err(str(error).encode())
            return error.code

    def x(self, node, script, check=True, timeout=120):
        out, err = [], []
        code = self.run(node, script, out.append, err.append, timeout)
        r = subprocess.CompletedProcess(script, code, b"".join(out).decode(errors="replace"),
                                        b"".join(err).decode(errors="replace"))
        if check and code:
            raise Failed(f"node{node}: {script!r} exited with {code}: {(r.stderr + r.stdout).strip()[-800:]}")
        return r

    def start_agent(self, node, devices=(DEVICE,)):
        words = " ".join(f"--device {d}" for d in devices)
        self.x(node, f"mkdir -p /run/lunar; setsid lunar-agent {words} >>/run/agent.log 2>&1 </dev/null &")


class Stream(threading.Thread):
    """A command in a node whose lines are kept with the time of this machine; the end of the node ends it."""

    def __init__(self, nodes, n, script):
        super().__init__(daemon=True)
        self.nodes, self.n, self.script = nodes, n, script
        self.lines, self.rest, self.code = [], b"", None
        self.start()

    def run(self):
        self.code = self.nodes.run(self.n, self.script, self.feed, self.feed)

    def feed(self, data):
        now = time.monotonic()
        *whole, self.rest = (self.rest + data).split(b"\n")
        self.lines += [(now, line.decode(errors="replace")) for line in whole]

    def first(self, pattern, since=0.0):
        """(time, line) of the first match, None if there is none."""
        return next(((t, line) for t, line in list(self.lines) if t >= since and re.search(pattern, line)), None)


Progress = namedtuple("Progress", "t at issued acked flying least errors slowest_ms oldest_ms")


class Writer(Stream):
    def __init__(self, nodes, n, device, options=""):
        super().__init__(nodes, n, f"exec stamper {device} --id {n} --bytes {REGION} {options}")

    def progress(self):
        for t, line in list(self.lines):
            words = dict(re.findall(r"(\w+)=([\d.]+)", line))
            if "issued" in words:
                yield Progress(t, float(words.pop("at")), *(int(v) for v in words.values()))

    def last(self, before=float("inf")):
        return max((p for p in self.progress() if p.t <= before), default=None, key=lambda p: p.t)

    def busy_at(self, t):
        """Why it had no I/O in flight then; empty: it had."""
        p, q = self.last(t), self.last(t - 1)
        if not p or not q or t - p.t > 1.0:
            return "it told nothing in the second before the fault"
        if p.flying < 4 or p.least < 4 or p.acked == q.acked:
            return f"{p.flying} writes in flight, {p.least} at least, {p.acked - q.acked} acknowledged in a second"
        return ""

    def last_ack(self):
        """When the count of acknowledged writes grew last."""
        best = None
        for p in self.progress():
            if best is None or p.acked > best.acked:
                best = p
        return best.t if best else None

    def longest_ms(self, since):
        return max((max(p.slowest_ms, p.oldest_ms) for p in self.progress() if p.t >= since), default=0)


# --- faults ---

def shell(script):
    return lambda row: row.c.x(row.victim, script)


def of_lun(function, disk=1):
    return lambda row: function(row.c.node(row.victim), disk)


def of_vm(word):
    return lambda row: row.c.vm(word, row.victim)


def nothing(_row):
    pass


def start_agent(row):
    row.c.start_agent(row.victim, row.devices)


def step_clock(row):
    """An hour forward, later an hour behind what it was."""
    row.c.x(row.victim, "date -s @$(($(date +%s) + 3600))")
    time.sleep(STAYS_S / 2)  # time enough for whatever believes that clock
    row.c.x(row.victim, "date -s @$(($(date +%s) - 7200))")


REMOVE = "echo 1 >$(readlink -f /sys/block/vdb/device)/../remove"
RESCAN = "echo 1 >/sys/bus/pci/rescan; udevadm settle -t 5"

# moves: the life ends and the owner gets the volumes. reset: "must", "never", or "may" where both are right.
# bare_reset: the same without exported volumes. busy: writers run at the fault. limit: strays are SAFETY 8's.
Fault = namedtuple("Fault", "name inflict heal moves reset bare_reset busy limit within_s", defaults=(True, False, DEAD_S))
FAULTS = [
    Fault("hang-idle", of_lun(lun.hang), of_lun(lun.heal), True, "never", "never", busy=False),
    Fault("hang-busy", of_lun(lun.hang), of_lun(lun.heal), True, "must", "never"),
    Fault("eio", of_lun(lun.error), of_lun(lun.heal), True, "never", "never"),
    Fault("removal", shell(REMOVE), shell(RESCAN), True, "never", "never"),
    Fault("agent-kill", shell("pkill -9 -x lunar-agent"), start_agent, False, "never", "never"),
    Fault("agent-stop", shell("pkill -STOP -x lunar-agent"), shell("pkill -CONT -x lunar-agent"), False, "never", "never"),
    Fault("sanlock-kill", shell("pkill -9 -x sanlock"), nothing, True, "must", "must"),
    Fault("wdmd-kill", shell("pkill -9 -x wdmd"), nothing, True, "must", "must", within_s=WDMD_S),
    Fault("frozen", of_vm("freeze"), of_vm("thaw"), True, "may", "may", limit=True),
    Fault("paused", of_vm("pause"), of_vm("resume"), True, "may", "may", limit=True),
    Fault("clock-step", step_clock, shell("date -s @$(($(date +%s) + 3600))"), False, "never", "never"),
    Fault("one-pool", of_lun(lun.error), of_lun(lun.heal), True, "never", "never"),
]
DEFAULT_ROWS = ("hang-busy",)  # the one that nothing but the watchdog ends; eio, hang and kill are in test_fence.py too

# What the victim's daemons say, in any version: the first word of trouble, and the end of a fence that was proved.
DETECTED = r" (fenced|lost|guard_gone) pool=demo"
FENCED = r" (fence_over|fence_proven) pool=demo"


class Row:
    """One fault of one victim. run() fills the table's columns; `findings` says what was wrong."""

    def __init__(self, c, leader_log, fault, bare, victim):
        self.c, self.leader_log, self.fault, self.bare, self.victim = c, leader_log, fault, bare, victim
        self.name = fault.name + ("-bare" if bare else "")
        self.devices = (DEVICE, SECOND) if fault.name == "one-pool" else (DEVICE,)
        self.findings, self.times, self.writers, self.volumes = [], {}, {}, {}
        self.strays, self.window, self.stall = None, None, None

    def find(self, condition, words):
        if not condition:
            self.findings.append(words)

    # before the fault
    def prepare(self):
        self.c.wait_joined((self.victim,))
        if len(self.devices) > 1:
            self.take_second_pool()
        lun.slow(self.c.node(self.victim), VICTIM_IOPS)
        for kind in () if self.bare else ("thick", "thin"):
            name = f"{self.name}-{kind}"
            self.c.ctl(OWNER, "volume", "create", name, "--size", "64MiB", *(["--thick"] if kind == "thick" else []))
            device = self.c.ctl(self.victim, "volume", "attach", name)["device"]
            self.volumes[name] = self.segments(self.victim, device)
            self.start_writer(name, device)
        if self.bare and self.fault.name == "hang-busy":  # no volume, but somebody's I/O on the LUN all the same
            Stream(self.c, self.victim, "while dd if=/dev/vdb of=/dev/null bs=64k count=64 iflag=direct; do :; done")
        self.journal = Stream(self.c, self.victim, "tail -q -n 0 -F /run/agent.log /run/lunar/*.log 2>/dev/null")
        if self.volumes and self.fault.busy:
            for w in self.writers.values():
                wait_for("the writer to write", lambda w=w: w.last() and w.last().acked > REGION // 4096 + 50, 60)
                wait_for("writes in flight", lambda w=w: not w.busy_at(time.monotonic()), 10)
        self.generation = self.c.agent_status(self.victim)["generation"]

    def take_second_pool(self):
        """The victim joins the second pool as well; a volume of it must not notice the first one's end."""
        self.c.x(self.victim, "pkill -TERM -x lunar-agent; while pgrep -x lunar-agent >/dev/null; do sleep 0.1; done")
        self.c.start_agent(self.victim, self.devices)
        self.c.wait_joined((self.victim,))
        other = ("--pool", "two")
        wait_for("the second pool", lambda: self.c.ctl(self.victim, *other, "node", "status")["state"] == "joined", 60)
        if not self.bare:
            wait_for("its coordinator", lambda: self.c.ctl(self.victim, *other, "status"), 30)
            self.c.ctl(self.victim, *other, "volume", "create", "other", "--size", "64MiB", "--thick")
            device = self.c.ctl(self.victim, *other, "volume", "attach", "other")["device"]
            lun.slow(self.c.node(self.victim), VICTIM_IOPS, 2)
            self.other = Writer(self.c, self.victim, device)

    def start_writer(self, name, device):
        """An idle victim has written once and holds nothing in flight; it tries again after the fault was healed."""
        if self.fault.busy:
            self.writers[name] = Writer(self.c, self.victim, device)
        else:
            self.c.x(self.victim, f"stamper {device} --id {self.victim} --bytes {REGION} --once")

    def segments(self, node, device):
        """The volume's first layer on the LUN, from the L map of whoever has it."""
        script = (f"h=$(dmsetup info -c --noheadings -o name {device}); echo $h; cat /sys/block/vdb/dev; "
                  "dmsetup table ${h%-h}-l0 2>/dev/null || dmsetup table $h")
        _, vdb, *table = self.c.x(node, script).stdout.splitlines()
        return stamps.segments("\n".join(table), vdb)

    # the fault and what it leads to
    def inflict(self):
        self.t0 = time.monotonic()
        self.fault.inflict(self)
        for name, w in self.writers.items():
            why = w.busy_at(self.t0)
            self.find(not why, f"{name}: no write in flight at the fault: {why}")

    def after(self, t):
        return None if t is None else t - self.t0

    def look(self):
        """Notes what has happened meanwhile."""
        if "reset" not in self.times and self.c.node(self.victim).state() == "off":
            self.times["reset"] = time.monotonic()
        host = f"name=node{self.victim} "
        for key, stream, pattern in (("detected", self.journal, DETECTED), ("fenced", self.journal, FENCED),
                                     ("dead", self.leader_log, host + ".*to=DEAD"),
                                     ("taken", self.leader_log, "grants_taken.*" + host)):
            hit = key not in self.times and stream.first(pattern, self.t0)
            if hit:
                self.times[key] = hit[0]

    def try_attach(self, name):
        """The owner's device once the owner has it; None while it is refused."""
        try:
            return self.c.ctl(OWNER, "volume", "attach", name)["device"]
        except Failed as error:
            self.refusal = str(error)
            return None

    def wait_moved(self):
        """The owner asks until it has all volumes; then writes each sector once."""
        end = self.t0 + self.fault.within_s + (MOVED_S - DEAD_S) + 30
        devices = {}
        while time.monotonic() < end and (len(devices) < len(self.volumes) or "dead" not in self.times):
            self.look()
            for name in self.volumes.keys() - devices.keys():
                device = self.try_attach(name)
                if device:
                    devices[name] = device
                    self.times.setdefault("moved", time.monotonic())
            time.sleep(0.2)
        self.look()
        self.find("dead" in self.times, "the coordinator never saw DEAD")
        if len(devices) < len(self.volumes):
            raise Failed(f"the volumes did not move within {end - self.t0:.0f} s: {self.refusal}")
        self.overwrite(devices)

    def overwrite(self, devices):
        for name, device in devices.items():
            self.find(self.segments(OWNER, device) == self.volumes[name], f"{name}: another place on the LUN")
            self.c.x(OWNER, f"stamper {device} --id {OWNER} --bytes {REGION} --once")
        if self.writers and self.fault.moves:
            self.stall = time.monotonic() - min(w.last_ack() or self.t0 for w in self.writers.values())

    def stays(self):
        """Nobody died: for longer than a death takes, nothing moves, nothing is reset, every write succeeds."""
        while time.monotonic() < self.t0 + STAYS_S:
            self.look()
            for name in self.volumes:
                self.find(not self.try_attach(name), f"{name} moved from a living node")
            time.sleep(1)
        self.find("dead" not in self.times, "a living node was seen DEAD")
        for name, w in self.writers.items():
            p = w.last()
            self.find(w.code is None and p.errors == 0, f"{name}: the writer ended or met errors: {w.lines[-1:]}")
            self.find(time.monotonic() - w.last_ack() < 2, f"{name}: the writer stands still")
        self.stall = max((w.longest_ms(self.t0) / 1000 for w in self.writers.values()), default=None)

    def alive(self):
        return self.c.node(self.victim).state() != "off"

    def heal(self):
        if self.alive():
            self.fault.heal(self)
        self.healed = time.monotonic()
        if self.volumes and not self.fault.busy and self.fault.moves and self.alive():
            again = " ".join(f"/dev/lunar/{POOL}/{name}" for name in self.volumes)
            self.c.x(self.victim, f"for d in {again}; do timeout 5 stamper $d --id {self.victim} --once; done", check=False,
                     timeout=30)

    # the disk
    def watch_disk(self):
        """The thick volume's sectors, several times a second: when did the last stray write land?"""
        thick = [parts for name, parts in self.volumes.items() if name.endswith("-thick")]
        seen = 0
        while self.volumes and time.monotonic() < self.healed + INSPECT_S:
            self.look()
            for parts in thick:
                n = len(stamps.stamps_by(stamps.region(self.c.lun_path, parts, REGION), self.victim))
                if n > seen:
                    self.window, seen = time.monotonic() - self.healed, n
            time.sleep(0.2)

    def inspect(self):
        self.strays = 0
        for name, parts in self.volumes.items():
            self.c.ctl(OWNER, "volume", "detach", name)
            read = stamps.region if name.endswith("-thick") else stamps.thin_region
            try:
                found = stamps.census(read(self.c.lun_path, parts, REGION))
            except Failed as error:
                self.find(self.fault.limit, f"{name}: {error}")
                continue
            strays = found.get(self.victim, 0)
            self.strays += strays
            self.find(self.fault.limit or not strays, f"{name}: {strays} sectors carry the victim's stamp")
            others = set(found) - {self.victim, OWNER}
            self.find(self.fault.limit or not others, f"{name}: sectors that nobody wrote: {found}")

    def judge(self):
        reset, t = self.fault.bare_reset if self.bare else self.fault.reset, self.times
        if reset == "must":
            self.find("reset" in t, "the node was not reset")
        if reset == "never":
            self.find("reset" not in t, "the node was reset")
        if "reset" in t and reset == "must":
            took = self.after(t["reset"])
            limit = self.fault.within_s + RESET_SLACK_S
            self.find(took <= limit, f"reset only after {took:.1f} s, {limit} allowed")
            self.find(t["reset"] <= t.get("moved", t["reset"]), "the volumes moved before the reset")
        if self.volumes and "dead" in t:  # the attach itself, three at once on this bed, is another matter
            self.find(t.get("taken", float("inf")) - t["dead"] <= TAKEN_S, f"its grants were not taken {TAKEN_S} s after DEAD")

    def one_pool_left(self):
        p = self.other.last()
        self.find(self.other.code is None and p.errors == 0 and time.monotonic() - self.other.last_ack() < 2,
                  f"the other pool's writer did not go on: {self.other.lines[-1:]}")

    # after it
    def restore(self, last):
        """The node as the next row wants it: by itself where it can, else booted anew, unless it was the last one."""
        with contextlib.suppress(Failed):
            self.c.x(self.victim, "pkill -9 -x stamper; pkill -x tail", check=False, timeout=20)
        if self.alive() and not self.findings:
            try:
                self.c.wait_joined((self.victim,), 60)
                if self.fault.moves:
                    self.times["rejoined"] = time.monotonic()
                lun.slow(self.c.node(self.victim), 0)
                self.attach_again()
                if len(self.devices) == 1:
                    return
            except (Failed, Failure) as error:
                self.find("reset" in self.times or not self.alive(), f"it did not join again by itself: {error}")
        if last:
            return
        self.c.vm("cut", self.victim)
        self.c.vm("start", self.victim)
        self.c.install((self.victim,))
        self.c.start_agent(self.victim)
        self.c.wait_joined((self.victim,))

    def attach_again(self):
        """A node that stayed up is of use again, with nothing restarted."""
        for name in self.volumes:
            wait_for(f"{name} on the victim again", lambda n=name: self.c.ctl(self.victim, "volume", "attach", n), 20)
            self.c.ctl(self.victim, "volume", "detach", name)

    def run(self, is_last):
        try:
            self.prepare()
            self.inflict()
            if self.fault.moves:
                self.wait_moved()
                self.heal()
            else:
                self.stays()
                self.heal()
                self.hand_over()
            self.watch_disk()
            if len(self.devices) > 1 and not self.bare:
                self.one_pool_left()
            self.inspect()
            self.judge()
        except (Failed, Failure, AssertionError, KeyError, subprocess.TimeoutExpired) as error:
            self.findings.append(f"{type(error).__name__}: {error}")
        self.save()
        try:
            self.restore(is_last())
            for name in self.volumes:
                self.c.ctl(OWNER, "volume", "delete", name)
        except (Failed, Failure, subprocess.TimeoutExpired) as error:
            self.findings.append(f"afterwards: {error}")

    def hand_over(self):
        """Nobody died: the volumes go the orderly way, and the disk is looked at all the same."""
        self.c.wait_joined((self.victim,))
        self.c.x(self.victim, "pkill -9 -x stamper; while pgrep -x stamper >/dev/null; do sleep 0.1; done", check=False)
        for name in self.volumes:
            wait_for("the detach", lambda name=name: self.c.ctl(self.victim, "volume", "detach", name), 20)
        self.overwrite({name: self.c.ctl(OWNER, "volume", "attach", name)["device"] for name in self.volumes})

    def save(self):
        self.c.logs.mkdir(parents=True, exist_ok=True)
        text = [f"{key} {self.after(t):.2f}" for key, t in self.times.items()] + self.findings
        for stream in (self.journal if hasattr(self, "journal") else None, *self.writers.values(), self.leader_log):
            if stream:
                text += [f"--- node{stream.n}: {stream.script}"]
                text += [f"{t - self.t0:8.2f} {line}" for t, line in list(stream.lines)
                         if hasattr(self, "t0") and t > self.t0 - 3]
        (self.c.logs / f"row-{self.name}.log").write_text("\n".join(text) + "\n")

    def columns(self):
        t = {key: f"{self.after(value):.1f}" for key, value in self.times.items()}
        how = " ".join(f"{key} {t[key]}" for key in ("fenced", "reset") if key in t) or "-"
        stray = "-" if self.strays is None or not self.volumes else str(self.strays)
        if self.window is not None:
            stray += f" ({self.window:.1f} s)"
        return (self.name, t.get("detected", "-"), how, t.get("dead", "-"), t.get("moved", "-"), t.get("rejoined", "-"), stray,
                "-" if self.stall is None else f"{self.stall:.1f}",
                "FAIL" if self.findings else "limit" if self.strays else "ok")


HEAD = ("row", "detected", "fenced/reset", "DEAD", "moved", "rejoined", "stray sectors", "stall s", "verdict")


def print_table(rows):
    lines = [HEAD] + [r.columns() for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEAD))]
    print("# seconds after the fault")
    for line in lines:
        print("# " + "  ".join(word.ljust(w) for word, w in zip(line, widths)).rstrip(), flush=True)


def second_pool(c):
    c.x(LEADER, f"lunarctl lun format {SECOND} --pool two --io-timeout {N} --watchdog-timeout {W} "
        "--max-nodes 16")


def pool_up(c, two_pools):
    c.format(max_nodes=64)
    if two_pools:
        second_pool(c)
    for n in range(1, c.nodes + 1):
        c.start_agent(n, (DEVICE, SECOND) if two_pools and n == LEADER else (DEVICE,))
    c.wait_joined(range(1, c.nodes + 1))
    c.start_coordinator(LEADER)
    c.wait_leader(ask=OWNER)
    c.start_coordinator(OWNER)
    if two_pools:
        c.x(LEADER, f"setsid lunar-coordinator --device {SECOND} >>/run/coordinator-two.log 2>&1 </dev/null &")


def run_rows(c, wanted):
    """Each victim takes the next row when it is free; a line per finished row."""
    pool_up(c, any(fault.name == "one-pool" for fault, _ in wanted))
    leader_log = Stream(c, LEADER, "tail -n 0 -F /run/coordinator.log")
    todo, done, printing = queue.SimpleQueue(), [], threading.Lock()
    for fault, bare in wanted:
        todo.put((fault, bare))

    def victim_loop(victim):
        while True:
            try:
                fault, bare = todo.get_nowait()
            except queue.Empty:
                return
            began = time.monotonic()
            row = Row(c, leader_log, fault, bare, victim)
            row.run(todo.empty)
            with printing:
                done.append(row)
                for words in row.findings:
                    print(f"# {row.name}: {words}")
                print(f"{'not ok' if row.findings else 'ok'} {len(done)} - {row.name} "
                      f"({time.monotonic() - began:.1f} s)", flush=True)

    victims = VICTIMS[:c.nodes - OWNER]
    with concurrent.futures.ThreadPoolExecutor(len(victims)) as pool:
        for future in [pool.submit(victim_loop, v) for v in victims]:
            future.result()
    order = [(fault.name, bare) for fault, bare in wanted]
    done.sort(key=lambda row: order.index((row.fault.name, row.bare)))
    print_table(done)
    return 1 if any(row.findings for row in done) else 0


def choose(names):
    rows = [(fault, bare) for fault in FAULTS for bare in (False, True)]
    if names:
        known = {fault.name + ("-bare" if bare else ""): (fault, bare) for fault, bare in rows}
        return [known[name] for name in names]
    return rows if LONG else [(fault, bare) for fault, bare in rows if fault.name in DEFAULT_ROWS and not bare]


def main():
    parser = argparse.ArgumentParser(description="the fault matrix")
    parser.add_argument("--row", action="append", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f.name + end for f in FAULTS for end in ("", "-bare")))
        return 0
    wanted = choose(args.row)
    c = Nodes("e2e-faults", nodes=OWNER + min(len(VICTIMS), len(wanted)), build="build/dev", keep=args.keep)
    for number in (signal.SIGINT, signal.SIGTERM):  # the rows' threads would be waited for otherwise
        signal.signal(number, lambda n, _: (c.close(), os._exit(128 + n)))
    with c:
        return run_rows(c, wanted)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Skip, Failed) as error:
        fatal(error)
