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

Failure modes: a QEMU that does not answer is a Failure, and the recorded state is unchanged.
Going from hang to error lets what already hung finish on the disk first (the swap drains it), as
from an array that answers late. A flush that carries no data is not held by a hang.
"""
from .qmp import Qmp

LIMITS_PATH = "/objects/lunlimit"
HOLD_BYTES_PER_S = 1


def set_limit(qmp, bytes_per_s):
    qmp.command("qom-set", path=LIMITS_PATH, property="limits", value={"bps-total": bytes_per_s})


def set_child(qmp, child):
    qmp.command("blockdev-reopen", options=[{"driver": "throttle", "node-name": "lun",
                                             "throttle-group": "lunlimit", "file": child}])


def hang(node):
    node.need("running", "paused")
    with Qmp(node) as qmp:
        set_limit(qmp, HOLD_BYTES_PER_S)
        qmp.human('qemu-io primer "aio_read 0 1M"')
        if node.lun_state() == "error":
            set_child(qmp, "lunfile")
    node.mark("lun", "hung")


def error(node):
    node.need("running", "paused")
    with Qmp(node) as qmp:
        set_child(qmp, "lunerror")
        set_limit(qmp, 0)
    node.mark("lun", "error")


def heal(node):
    node.need("running", "paused")
    with Qmp(node) as qmp:
        set_limit(qmp, 0)
        set_child(qmp, "lunfile")
    node.mark("lun")
