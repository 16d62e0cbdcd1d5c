# SPDX-License-Identifier: Apache-2.0
"""The parts of tools/vmcluster: base (packages to images), initrd, accel, cluster (state),
qemu, qmp, lun, switch, remote (commands in a node), life (up, down, start), cli.

Happy path: cli parses, life builds what is missing and starts processes, everything else finds
them again through the state directory. Failure modes: every expected one is raised as Failure
(one line for the user, with an exit code); anything else is a bug and shows its traceback.
"""

LACKING = 77    # exit code: this machine has not what it takes; tests skip on it


class Failure(Exception):
    """An expected failure: what the user is told, and the exit code."""

    def __init__(self, text, code=1):
        super().__init__(text)
        self.code = code
