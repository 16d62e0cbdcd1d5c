# SPDX-License-Identifier: Apache-2.0
"""A cluster's state directory: what runs, where its sockets are, which faults are on.

Happy path: `up` writes cluster.json before it starts anything; every process is recorded as (pid,
start time), so a reused pid is never taken for ours. Faults set from outside (lun, paused, cut) are
small files beside the node's sockets.

    ${XDG_RUNTIME_DIR:-/tmp}/lunar-vm-UID/NAME/cluster.json  net/{ctl,swN,nicN}  net.log
                                              nodeN/{process.json,qmp,console.log,qemu.log,initrd}

With --iscsi there are also san/, the storage network, and target/, the machine that has the LUN.

Failure modes: a directory that another user owns, a path too long for a Unix socket, or a cluster
that is not up are Failures. Processes whose record was lost (a kill between fork and record) are
found by their command line, which carries this directory.
"""
import fcntl
import glob
import json
import os
import re
import shutil
import signal
import time
from contextlib import contextmanager

from . import Failure

SOCKET_PATH_MAX = 107
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}"


def process_start_time(pid):
    """The kernel's start tick of a living process, None when it is gone or a zombie."""
    state, start = process_stat(pid)
    return None if state in (None, "Z", "X") else start


def process_stat(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, IndexError):
        return None, None


def write_json(path, value):
    with open(path + ".new", "w") as f:
        json.dump(value, f, indent=1)
    os.rename(path + ".new", path)


def read_json(path):
    try:
        with open(path) as f:
            return json.load(f)
    except (OSError, ValueError):
        return None


class Process:
    """A recorded process: alive() and kill() are safe against reused pids."""

    def __init__(self, path):
        self.path = path
        self.record = read_json(path) or {}

    def save(self, pid, **more):
        self.record = {"pid": pid, "start": process_start_time(pid),
                       "began": time.time(), **more}
        self.save_record()

    def save_record(self):
        write_json(self.path, self.record)

    @property
    def pid(self):
        return self.record.get("pid")

    def alive(self):
        start = self.record.get("start")
        return start is not None and process_start_time(self.pid) == start

    def signal(self, number):
        if self.alive():
            os.kill(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        while self.alive():
            reap(self.pid)
            time.sleep(0.01)


def reap(pid):
    """Collects a dead child of ours; a no-op for everybody else's."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


class Node:
    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number
        self.is_target = number > cluster.config["nodes"]   # the machine behind the nodes
        self.name = "target" if self.is_target else f"node{number}"
        self.dir = os.path.join(cluster.dir, self.name)
        self.process = Process(self.path("process.json"))

    def path(self, name):
        return os.path.join(self.dir, name)

    # Faults are marker files: present with a word in them, or absent.
    def mark(self, fault, word=None):
        if word is None:
            if os.path.exists(self.path(fault)):
                os.unlink(self.path(fault))
        else:
            with open(self.path(fault), "w") as f:
                f.write(word)

    def marked(self, fault):
        try:
            with open(self.path(fault)) as f:
                return f.read()
        except OSError:
            return None

    def state(self):
        """running, frozen (SIGSTOP), paused (QMP stop) or off."""
        if not self.process.alive():
            return "off"
        if process_stat(self.process.pid)[0] in ("T", "t"):
            return "frozen"
        return "paused" if self.marked("paused") else "running"

    def lun_state(self, disk=1):
        return self.marked("lun" if disk == 1 else f"lun{disk}") or "ok"

    def need(self, *states):
        """Raises Failure unless the node is in one of the states."""
        if self.state() not in states:
            raise Failure(f"{self.name} is {self.state()}")


class Cluster:
    def __init__(self, name):
        if not re.fullmatch(NAME_PATTERN, name):
            raise Failure(f"cluster name {name!r}: letters, digits, _ . -, at most 32")
        self.name = name
        self.dir = os.path.join(state_root(), name)
        self.config = read_json(self.path("cluster.json")) or {}

    def path(self, name):
        return os.path.join(self.dir, name)

    def exists(self):
        return bool(self.config)

    def need(self):
        if not self.exists():
            raise Failure(f"cluster {self.name!r} is not up (tools/vmcluster up)")
        return self

    def create(self, config):
        longest = self.path("node99/qmp")
        if len(longest) > SOCKET_PATH_MAX:
            raise Failure(f"{longest} is too long for a Unix socket; use a shorter name or "
                          "XDG_RUNTIME_DIR")
        os.makedirs(self.dir, mode=0o700)
        self.config = config
        for folder in self.networks():
            os.mkdir(self.path(folder))
        for node in self.machines():
            os.mkdir(node.dir)
        self.save()

    def save(self):
        write_json(self.path("cluster.json"), self.config)

    def nodes(self):
        return [Node(self, n) for n in range(1, self.config.get("nodes", 0) + 1)]

    def machines(self):
        """The nodes and, with --iscsi, the target, whose number follows theirs."""
        target = [Node(self, self.config["nodes"] + 1)] if self.config.get("iscsi") else []
        return self.nodes() + target

    def networks(self):
        """The folders of the switches."""
        return ["net", "san"] if self.config.get("iscsi") else ["net"]

    def node(self, word):
        if word == "target" and self.need().config.get("iscsi"):
            return self.machines()[-1]
        m = re.fullmatch(r"(?:node)?(\d+)", word)
        if not m or not 1 <= int(m.group(1)) <= self.need().config["nodes"]:
            raise Failure(f"no node {word!r} in cluster {self.name!r}")
        return Node(self, int(m.group(1)))

    def switch(self, network="net"):
        return Process(self.path(f"{network}.json"))

    @contextmanager
    def locked(self):
        """Serialises up, down and start of one cluster; who leaves none takes the lock away."""
        path = os.path.join(state_root(), f".{self.name}.lock")
        f = lock_file(path)
        try:
            self.config = read_json(self.path("cluster.json")) or {}
            yield
        finally:
            if not os.path.exists(self.dir):
                os.unlink(path)
            f.close()

    def destroy(self):
        """Ends every process of this cluster and removes its traces."""
        switches = [self.switch(network) for network in self.networks()]
        for process in [n.process for n in self.machines()] + switches:
            process.kill()
        for pid in self.stray_pids():
            os.kill(pid, signal.SIGKILL)
        for lun in (self.config.get("own_lun"), self.config.get("lun2")):
            if lun and os.path.exists(lun):
                os.unlink(lun)
        shutil.rmtree(self.dir, ignore_errors=True)

    def stray_pids(self):
        """Our processes that no record names: QEMUs and switches run with this directory."""
        names = ["net", "san", "target/pid", *(f"node{n}/pid" for n in range(1, 100))]
        ours = [f"{self.dir}/{name}".encode() for name in names]
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as f:
                    words = f.read().split(b"\0")
            except OSError:
                continue
            runs_ours = b"-pidfile" in words or any(w.endswith(b"/vmlib/switch.py") for w in words)
            pid = int(path.split("/")[2])
            if runs_ours and any(w in ours for w in words) and process_start_time(pid):
                yield pid


def lock_file(path):
    """Opens and locks a file that a previous holder may have removed while we waited."""
    while True:
        f = open(path, "w")
        fcntl.flock(f, fcntl.LOCK_EX)
        try:
            if os.path.samestat(os.stat(path), os.fstat(f.fileno())):
                return f
        except FileNotFoundError:
            pass
        f.close()


def state_root():
    base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"
    path = os.path.join(base, f"lunar-vm-{os.geteuid()}")
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.stat(path).st_uid != os.geteuid():
        raise Failure(f"{path} belongs to somebody else")
    return path


def all_names():
    return sorted(os.path.basename(os.path.dirname(p))
                  for p in glob.glob(os.path.join(state_root(), "*", "cluster.json")))
