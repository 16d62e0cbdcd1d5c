# SPDX-License-Identifier: Apache-2.0
"""One conversation with a node's QEMU monitor.

Happy path: connect, greet, a few commands, close. QEMU serves one client at a time, so a lock file
beside the socket queues concurrent vmcluster calls.

Failure modes: a QEMU that is gone, stopped or silent for TIMEOUT_S is a Failure; so is an error
answer, with QEMU's own words.
"""
import fcntl
import json
import socket

from . import Failure

TIMEOUT_S = 20


class Qmp:
    def __init__(self, node):
        self.node = node

    def __enter__(self):
        self.lock = open(self.node.path("qmp.lock"), "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        try:
            self.sock.connect(self.node.path("qmp"))
            self.stream = self.sock.makefile("rw")
            self.stream.readline()
        except OSError as e:
            raise Failure(f"{self.node.name}: QEMU's monitor: {e.strerror or e}") from e
        self.command("qmp_capabilities")
        return self

    def __exit__(self, *_):
        self.sock.close()
        self.lock.close()

    def command(self, name, **arguments):
        try:
            self.stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
            self.stream.flush()
            return self.answer(name)
        except OSError as e:
            raise Failure(f"{self.node.name}: QEMU does not answer {name}: {e}") from e

    def answer(self, name):
        for line in self.stream:
            reply = json.loads(line)
            if "error" in reply:
                raise Failure(f"{self.node.name}: {name}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
        raise Failure(f"{self.node.name}: QEMU ended during {name}")

    def human(self, text):
        return self.command("human-monitor-command", **{"command-line": text})
