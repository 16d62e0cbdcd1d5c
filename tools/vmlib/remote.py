# SPDX-License-Identifier: Apache-2.0
"""Runs commands in a node, and copies files, through its vm-execd (protocol: guest/execd.c).

Happy path: one TCP connection to 127.0.0.1 per command; stdin, stdout and stderr are passed on as
they come, byte for byte; the command's exit code is returned (128 + N after signal N).

Failure modes: an unreachable node is a Failure with code 255: it is off, frozen or paused at the
start, its QEMU ends, or it is silent for SILENT_S although it runs (vm-execd beats every 2 s). A
node that is frozen or paused *during* a command is waited for. A time-out is a Failure with code
124. In each case the connection is closed, and vm-execd ends the command's process group.
"""
import os
import select
import socket
import struct
import sys
import time

from . import Failure

UNREACHABLE, TIMED_OUT = 255, 124
GREETING_S = 30
SILENT_S = 60
CHUNK = 65536

PUSH_SCRIPT = """
d=$1; case $d in */) mkdir -p "$d";; esac
[ -d "$d" ] && d=${d%/}/$2
t=$d.push.$$; trap 'rm -f "$t"' EXIT
mkdir -p "${d%/*}/" && cat >"$t" && chmod "$3" "$t" || exit 1
[ "$(stat -c %s "$t")" = "$4" ] && mv -f "$t" "$d"
"""


class Lost(Failure):
    def __init__(self, node, why):
        super().__init__(f"{node.name} is unreachable: {why}", UNREACHABLE)


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data):]


class Session:
    """One command. on_out and on_err take bytes; stdin is a file descriptor, bytes or None."""

    def __init__(self, node, argv, stdin, on_out, on_err):
        self.node, self.argv = node, argv
        self.sinks = {b"O": on_out, b"R": on_err}
        self.stdin_fd = stdin if isinstance(stdin, int) else None
        self.to_send = b""
        if self.stdin_fd is None:
            for i in range(0, len(stdin or b""), CHUNK):
                self.queue(b"I", stdin[i:i + CHUNK])
            self.queue(b"E")
        self.received = bytearray()
        self.code = None
        self.heard = time.monotonic()

    def queue(self, kind, data=b""):
        self.to_send += kind + struct.pack("<I", len(data)) + data

    def connect(self, limit_s):
        state = self.node.state()
        if state != "running":
            raise Lost(self.node, f"it is {state}")
        argv = b"".join(os.fsencode(a) + b"\0" for a in self.argv)
        if len(argv) > CHUNK:
            raise Failure("the command is longer than 64 KiB: push a script instead")
        try:
            port = self.node.process.record["port"]
            self.sock = socket.create_connection(("127.0.0.1", port), limit_s)
            self.sock.sendall(self.node.cluster.config["token"].encode())
            if self.sock.recv(5, socket.MSG_WAITALL) != b"H\0\0\0\0":
                raise Lost(self.node, "it closed the connection")
            self.sock.sendall(b"A" + struct.pack("<I", len(argv)) + argv)
        except (OSError, KeyError) as e:
            if isinstance(e, socket.timeout) and limit_s < GREETING_S:
                raise self.timed_out(limit_s) from e
            raise Lost(self.node, f"{e} (it is {self.node.state()})") from e
        self.sock.setblocking(False)

    def take_stdin(self):
        data = os.read(self.stdin_fd, CHUNK)
        if data:
            self.queue(b"I", data)
        else:
            self.stdin_fd = None
            self.queue(b"E")

    def send(self):
        try:
            self.to_send = self.to_send[self.sock.send(self.to_send[:4 * CHUNK]):]
        except BlockingIOError:
            pass
        except OSError:
            self.to_send = b""      # the receiving side tells why

    def receive(self):
        try:
            data = self.sock.recv(4 * CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise Lost(self.node, "the connection ended during the command "
                       f"(the node is {self.node.state()})")
        self.heard = time.monotonic()
        self.received += data
        while self.take_frame():
            pass

    def take_frame(self):
        if len(self.received) < 5:
            return False
        kind, length = bytes(self.received[:1]), struct.unpack_from("<I", self.received, 1)[0]
        if len(self.received) < 5 + length:
            return False
        data = bytes(self.received[5:5 + length])
        del self.received[:5 + length]
        if kind == b"X":
            self.code = data[0]
        elif kind in self.sinks and data:
            self.sinks[kind](data)
        return self.code is None

    def check_alive(self):
        state = self.node.state()
        if state == "off":
            raise Lost(self.node, "it went off during the command")
        if state != "running":
            self.heard = time.monotonic()
        elif time.monotonic() - self.heard > SILENT_S:
            raise Lost(self.node, f"it runs but has been silent for {SILENT_S} s")

    def step(self, wait_s):
        reading = [self.sock]
        if self.stdin_fd is not None and len(self.to_send) < CHUNK:
            reading.append(self.stdin_fd)
        writing = [self.sock] if self.to_send else []
        ready, writable, _ = select.select(reading, writing, [], wait_s)
        if self.stdin_fd in ready:
            self.take_stdin()
        if writable:
            self.send()
        if self.sock in ready:
            self.receive()
        elif not ready and not writable:
            self.check_alive()

    def timed_out(self, limit_s):
        return Failure(f"{self.node.name}: no end of {self.argv[0]} within {limit_s:g} s",
                       TIMED_OUT)

    def run(self, timeout_s):
        deadline = time.monotonic() + timeout_s if timeout_s else float("inf")
        self.connect(min(GREETING_S, timeout_s or GREETING_S))
        with self.sock:
            while self.code is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self.timed_out(timeout_s)
                self.step(min(left, 1.0))
        return self.code


def call(node, argv, stdin=None, on_out=None, on_err=None, timeout_s=None):
    """Runs argv in the node and returns its exit code; output goes to our own unless told."""
    on_out = on_out or (lambda data: write_all(1, data))
    on_err = on_err or (lambda data: write_all(2, data))
    return Session(node, argv, stdin, on_out, on_err).run(timeout_s)


def output(node, argv, timeout_s=60):
    """Returns (exit code, stdout and stderr together as text)."""
    parts = []
    code = call(node, argv, None, parts.append, parts.append, timeout_s)
    return code, b"".join(parts).decode(errors="replace")


def own_stdin():
    """Our stdin when there is one to pass on; a terminal is left alone."""
    try:
        return None if os.isatty(0) or not os.fstat(0) else 0
    except OSError:
        return None


def push(node, source, dest):
    try:
        with open(source, "rb") as f:
            info = os.fstat(f.fileno())
            if not os.path.isfile(source):
                raise Failure(f"{source} is not a regular file")
            name = os.path.basename(source)
            dest = dest if "/" in dest else f"/root/{dest}"
            argv = ["sh", "-c", PUSH_SCRIPT, "push", dest, name,
                    oct(info.st_mode & 0o7777)[2:], str(info.st_size)]
            code = call(node, argv, f.fileno())
    except OSError as e:
        raise Failure(f"{source}: {e.strerror}") from e
    if code != 0:
        raise Failure(f"{node.name}: push to {dest} failed")


def pull(node, source, dest):
    if dest == "-":
        return call(node, ["cat", "--", source])
    if os.path.isdir(dest):
        dest = os.path.join(dest, os.path.basename(source))
    code, text = output(node, ["stat", "-L", "-c", "%a", "--", source])
    if code != 0:
        raise Failure(f"{node.name}: {text.strip()}")
    partial = f"{dest}.pull.{os.getpid()}"
    try:
        with open(partial, "wb") as f:
            code = call(node, ["cat", "--", source], None, f.write)
            os.fchmod(f.fileno(), int(text, 8))
        if code == 0:
            os.rename(partial, dest)
    except OSError as e:
        raise Failure(f"{dest}: {e.strerror}") from e
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    return code


def main_exec(node, argv, timeout_s, no_stdin):
    try:
        return call(node, argv, None if no_stdin else own_stdin(), timeout_s=timeout_s)
    except BrokenPipeError:
        sys.stderr.close()
        return 141
