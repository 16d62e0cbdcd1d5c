# SPDX-License-Identifier: Apache-2.0
"""Starts the QEMU of one node.

Happy path: the command line is made from the cluster's record, the process becomes a session of
its own (no terminal's end reaches it) and is recorded; its monitor then tells the TCP port on
127.0.0.1 that QEMU picked for the node's exec server.

Failure modes: a QEMU that ends before its monitor answers is reported with its last words. Guest
resets end QEMU (-no-reboot): a node fenced by its watchdog is simply off. LUN errors are reported
to the guest, never acted on by QEMU.
"""
import json
import os
import re
import socket
import subprocess
import time
import uuid

from . import Failure, base, initrd
from .qmp import Qmp

MONITOR_S = 60
TARGET_MB = 384
KERNEL_WORDS = ("console=ttyS0 quiet loglevel=4 net.ifnames=0 tsc=reliable no_timer_check "
                "mitigations=off random.trust_cpu=on audit=0 panic=-1 oops=panic")


def machine_uuid(node):
    return str(uuid.uuid5(uuid.NAMESPACE_OID,
                          f"lunar-vm/{os.geteuid()}/{node.cluster.name}/{node.number}"))


def mac(kind, node):
    """kind 1: the nodes' network, 2: the storage network, 0: management. Stable."""
    return f"52:54:00:4c:{kind:02x}:{node.number:02x}"


def settings(node):
    """What the guest sources as /etc/vmcluster.env."""
    c = node.cluster.config
    return {"NODE": node.number, "NODES": c["nodes"], "CLUSTER": c["name"],
            "NODE_MAC": mac(1, node), "MGMT_MAC": mac(0, node), "SAN_MAC": mac(2, node),
            "SANLOCK": int(c["sanlock"] and not node.is_target),
            "ISCSI": c["iscsi"] or "", "TARGET": int(node.is_target),
            "IO_TIMEOUT": c["io_timeout_s"], "WATCHDOG_TIMEOUT": c["watchdog_timeout_s"]}


def has_disk(node):
    """Whether the LUN is a disk of this machine: in an iSCSI cluster it is the target's alone."""
    return node.is_target or not node.cluster.config["iscsi"]


def root_block(config):
    return {"driver": "file", "locking": "off", "node-name": "root", "filename": config["root"],
            "read-only": True}


def lun_blocks(path, end):
    """A LUN's block nodes; `end` is "" or the disk's number, behind each name (see lun.py)."""
    # Not "flush": QEMU flushes the node when lun-heal swaps it, and would refuse. The guest's disk
    # is write-through, so its writes carry the error and it sends no flush.
    errors = [{"event": "none", "iotype": t, "errno": 5}
              for t in ("read", "write", "write-zeroes", "discard")]
    group = {"driver": "throttle", "throttle-group": f"lunlimit{end}"}
    return [
        # One host page cache for all nodes makes them coherent. Host fsyncs are left out: a
        # power cut is a killed QEMU, and the page cache outlives that.
        {"driver": "file", "locking": "off", "node-name": f"lunfile{end}", "filename": path,
         "cache": {"direct": False, "no-flush": True}, "discard": "unmap"},
        {"driver": "blkdebug", "node-name": f"lunerror{end}", "image": f"lunfile{end}",
         "inject-error": errors},
        {"driver": "null-co", "node-name": f"null{end}", "size": 1 << 20},
        dict(group, **{"node-name": f"primer{end}", "file": f"null{end}"}),
        dict(group, **{"node-name": f"lun{end}", "file": f"lunfile{end}"}),
    ]


def luns(config):
    """(path, name suffix) of each LUN."""
    return [(config["lun"], "")] + ([(config["lun2"], "2")] if config.get("lun2") else [])


def accel_words(config):
    if config["accel"] == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max,cx16=off"]


def networks_of(node):
    """(network, kind of its addresses): the target is on the storage network alone."""
    return [(n, kind) for n, kind in (("net", 1), ("san", 2))
            if n in node.cluster.networks() and not (node.is_target and n == "net")]


def network_words(node):
    words = []
    for network, kind in networks_of(node):
        folder = node.cluster.path(network)
        words += ["-netdev", f"dgram,id={network},local.type=unix,"
                  f"local.path={folder}/nic{node.number},"
                  f"remote.type=unix,remote.path={folder}/sw{node.number}",
                  "-device", f"virtio-net-pci,netdev={network},mac={mac(kind, node)},romfile="]
    return [*words, "-netdev", "user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:0-:7000",
            "-device", f"virtio-net-pci,netdev=mgmt,mac={mac(0, node)},romfile="]


def disk_words(node):
    config = node.cluster.config
    words = ["-blockdev", json.dumps(root_block(config)), "-device", "virtio-blk-pci,drive=root"]
    for path, end in luns(config) if has_disk(node) else ():
        words += ["-object", f"throttle-group,id=lunlimit{end}"]
        words += [w for b in lun_blocks(path, end) for w in ("-blockdev", json.dumps(b))]
        words += ["-device", f"virtio-blk-pci,drive=lun{end},id=lundisk{end},share-rw=on,"
                  f"serial=sanlun{end or '0'},write-cache=off,rerror=report,werror=report"]
    return words


def command(node):
    c = node.cluster.config
    return [*base.qemu_program(c["base"]), "-name", f"{c['name']}-{node.name}",
            "-M", "q35,usb=off,vmport=off,smbus=off,graphics=off", *accel_words(c),
            "-smp", "1", "-m", str(TARGET_MB if node.is_target else c["mem_mb"]),
            "-uuid", machine_uuid(node),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", f"{c['base']}/vmlinux", "-initrd", node.path("initrd"),
            "-append", KERNEL_WORDS,
            "-chardev", f"file,id=console,path={node.path('console.log')},append=on",
            "-serial", "chardev:console",
            *disk_words(node), *network_words(node),
            "-qmp", f"unix:{node.path('qmp')},server=on,wait=off", "-pidfile", node.path("pid")]


def remove_stale(node):
    stale = [node.path("qmp"), node.path("pid")]
    stale += [node.cluster.path(f"{n}/nic{node.number}") for n in node.cluster.networks()]
    for path in stale:
        if os.path.lexists(path):
            os.unlink(path)
    for fault in ("lun", "lun2", "paused", "cut"):
        node.mark(fault)


def spawn(node):
    """Starts the process; returns at once."""
    remove_stale(node)
    initrd.for_node(node.cluster.config["initrd"], settings(node), node.cluster.config["token"],
                    node.path("initrd"))
    with open(node.path("qemu.log"), "ab") as log:
        offset = os.path.getsize(node.path("console.log")) \
            if os.path.exists(node.path("console.log")) else 0
        child = subprocess.Popen(command(node), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 start_new_session=True)
    node.process.save(child.pid, console_offset=offset)
    return child


def forwarded_port(node):
    with Qmp(node) as qmp:
        table = qmp.human("info usernet")
    found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", table)
    if not found:
        raise Failure(f"{node.name}: QEMU forwards no port:\n{table}")
    return int(found.group(1))


def monitor_listens(node):
    """The socket file alone is no proof: it exists a moment before QEMU listens on it."""
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(node.path("qmp"))
        return True
    except OSError:
        return False


def attach(node, child):
    """Waits for the monitor of a fresh QEMU and records its port."""
    deadline = time.monotonic() + MONITOR_S
    while not monitor_listens(node):
        if child.poll() is not None or time.monotonic() > deadline:
            with open(node.path("qemu.log"), errors="replace") as f:
                raise Failure(f"{node.name}: QEMU did not start: {f.read()[-800:]}")
        time.sleep(0.02)
    node.process.record["port"] = forwarded_port(node)
    node.process.save_record()
