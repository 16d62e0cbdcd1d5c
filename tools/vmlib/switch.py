# SPDX-License-Identifier: Apache-2.0
"""An Ethernet switch between the machines: run as `python3 switch.py NETDIR MACHINES`. A cluster
has one for the nodes' network, and with --iscsi a second one for the storage network.

Happy path: NETDIR/swN is ours and NETDIR/nicN is QEMU's end of node N's cable (Unix datagrams, one
frame each). Addresses are learned; unknown and multicast frames go to everybody. NETDIR/ctl takes
one line per connection, "cut N...", "heal N..." or "state", and answers with the nodes now cut, so
a caller knows that the fault is in force when it returns.

Failure modes: a node that is off or does not read loses its frames, as on a real switch; a cut
node's frames are dropped in both directions. If this process dies all nodes are isolated, and
`vmcluster status` says so.
"""
import os
import select
import socket
import sys

FRAME_BYTES_MAX = 70000
BATCH = 64


class Switch:
    def __init__(self, folder, count):
        self.folder = folder
        self.cut = set()
        self.owner = {}     # Ethernet address -> node
        self.cables = {n: self.cable(n) for n in range(1, count + 1)}
        self.control = socket.socket(socket.AF_UNIX)
        self.control.bind(f"{folder}/ctl.new")
        self.control.listen(16)
        os.rename(f"{folder}/ctl.new", f"{folder}/ctl")  # who sees it is answered

    def cable(self, n):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        s.bind(f"{self.folder}/sw{n}")
        s.setblocking(False)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        return s

    def send(self, n, frame):
        if n in self.cut:
            return
        try:
            self.cables[n].sendto(frame, f"{self.folder}/nic{n}")
        except OSError:
            pass

    def forward(self, source, frame):
        if source in self.cut or len(frame) < 14:
            return
        self.owner[frame[6:12]] = source
        target = None if frame[0] & 1 else self.owner.get(frame[:6])
        for n in self.cables if target is None else (target,):
            if n != source:
                self.send(n, frame)

    def receive(self, n):
        for _ in range(BATCH):
            try:
                frame = self.cables[n].recv(FRAME_BYTES_MAX)
            except OSError:
                return
            self.forward(n, frame)

    def obey(self):
        client, _ = self.control.accept()
        with client:
            client.settimeout(2)
            try:
                word, *nodes = client.recv(4096).decode().split()
                if word == "cut":
                    self.cut.update(map(int, nodes))
                elif word == "heal":
                    self.cut.difference_update(map(int, nodes))
                client.sendall(" ".join(map(str, sorted(self.cut))).encode() + b"\n")
            except (OSError, ValueError):
                pass

    def run(self):
        poll = select.epoll()
        by_fd = {s.fileno(): n for n, s in self.cables.items()}
        for fd in (*by_fd, self.control.fileno()):
            poll.register(fd, select.EPOLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd in by_fd:
                    self.receive(by_fd[fd])
                else:
                    self.obey()


def ask(folder, line):
    """For callers: sends one control line; returns the set of nodes that are cut, or None."""
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(os.path.join(folder, "ctl"))
            s.sendall(line.encode() + b"\n")
            return set(map(int, s.makefile().readline().split()))
    except OSError:
        return None


if __name__ == "__main__":
    Switch(sys.argv[1], int(sys.argv[2])).run()
