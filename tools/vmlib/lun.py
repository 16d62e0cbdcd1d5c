# SPDX-License-Identifier: Apache-2.0
"""Faults of one node's path to the shared LUN, while the guest runs.

The guest's disk sits on a QEMU throttle node "lun" whose child is the LUN's file, or a blkdebug
node over it that answers everything with EIO.

Happy path:
    hang   the throttle group is limited to 1 byte/s and its bucket filled by a read of 1 MiB on
           "primer" (a null disk in the same group), so that the guest's very next I/O waits for
           days; without the primer one I/O would slip through.
    error  the child is swapped for the failing one (blockdev-reopen).
    heal   no limit, the good child; the reopen also wakes what was waiting, which completes.
    slow   so many I/Os per second; a writer then always has some waiting in QEMU. Stays until it is
           set to 0, also under a hang.

A cluster may have a second LUN; its nodes' names end in 2, and disk=2 means it.

Failure modes: a QEMU that does not answer is a Failure, and the recorded state is unchanged.
Going from hang to error lets what already hung finish on the disk first (the swap drains it), as
from an array that answers late. A flush that carries no data is not held by a hang.
"""
from . import Failure, qemu
from .qmp import Qmp

LIMITS_PATH = "/objects/lunlimit"
HOLD_BYTES_PER_S = 1


def suffix(disk):
    return "" if disk == 1 else str(disk)


def set_limit(qmp, disk, **limits):
    qmp.command("qom-set", path=LIMITS_PATH + suffix(disk), property="limits", value=limits)


def set_child(qmp, disk, child):
    end = suffix(disk)
    qmp.command("blockdev-reopen", options=[{"driver": "throttle", "node-name": f"lun{end}",
                                             "throttle-group": f"lunlimit{end}",
                                             "file": f"{child}{end}"}])


def need_disk(node):
    if not qemu.has_disk(node):
        raise Failure(f"{node.name} has the LUN by iSCSI: use san-cut, or lun-... of the target")
    node.need("running", "paused")


def hang(node, disk=1):
    need_disk(node)
    with Qmp(node) as qmp:
        set_limit(qmp, disk, **{"bps-total": HOLD_BYTES_PER_S})
        qmp.human(f'qemu-io primer{suffix(disk)} "aio_read 0 1M"')
        if node.lun_state(disk) == "error":
            set_child(qmp, disk, "lunfile")
    node.mark(f"lun{suffix(disk)}", "hung")


def error(node, disk=1):
    need_disk(node)
    with Qmp(node) as qmp:
        set_child(qmp, disk, "lunerror")
        set_limit(qmp, disk, **{"bps-total": 0})
    node.mark(f"lun{suffix(disk)}", "error")


def heal(node, disk=1):
    need_disk(node)
    with Qmp(node) as qmp:
        set_limit(qmp, disk, **{"bps-total": 0})
        set_child(qmp, disk, "lunfile")
    node.mark(f"lun{suffix(disk)}")


def slow(node, iops, disk=1):
    """At most so many I/Os per second; 0: no limit."""
    need_disk(node)
    with Qmp(node) as qmp:
        set_limit(qmp, disk, **{"iops-total": iops})


def grow(node, size, disk=1):
    """The LUN has that many bytes for this node from now on; its guest's virtio disk notices by itself. The file is one for
    all nodes, but each QEMU has to be told."""
    need_disk(node)
    with Qmp(node) as qmp:
        qmp.command("block_resize", **{"node-name": f"lun{suffix(disk)}", "size": size})
