# SPDX-License-Identifier: Apache-2.0
"""Runs in nodes: a writer to three devices, whose state tells of any instant whether it was one.

usage: order_writer.py serve PORT C                          writes to C what it is told; until it is killed
       order_writer.py write A B HOST PORT STOPFILE ACKFILE  until STOPFILE is there; then one JSON line {"acked", "errors", "longest_s"}
       order_writer.py look DEVICE                           the number in it

One number after the other is written to A, then to B, then, by the server, to C, each only when the one before has returned
(O_DIRECT). So at any instant a >= b >= c >= a - 1. The number that all three have stands in ACKFILE.
"""

import json
import mmap
import os
import socket
import sys
import time

SIZE = 4096
WORD = 8


def opened(device):
    return os.open(device, os.O_RDWR | os.O_DIRECT)


def put(fd, buffer, number):
    buffer[:WORD] = number.to_bytes(WORD, "little")
    os.pwrite(fd, buffer, 0)


def number_of(device):
    buffer = mmap.mmap(-1, SIZE)
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    os.preadv(fd, [buffer], 0)
    os.close(fd)
    return int.from_bytes(buffer[:WORD], "little")


def serve(port, device):
    listener = socket.create_server(("", int(port)))
    fd, buffer = opened(device), mmap.mmap(-1, SIZE)
    while True:
        connection, _ = listener.accept()
        while word := connection.recv(WORD, socket.MSG_WAITALL):
            put(fd, buffer, int.from_bytes(word, "little"))
            connection.sendall(word)


def write(a, b, host, port, stop, ack):
    server = socket.create_connection((host, int(port)), timeout=60)
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    seen = os.open(ack, os.O_RDWR | os.O_CREAT, 0o600)
    number, longest, errors = number_of(a), 0.0, 0
    fds, buffer = [opened(a), opened(b)], mmap.mmap(-1, SIZE)
    while not os.path.exists(stop) and not errors:
        number += 1
        start = time.monotonic()
        try:
            for fd in fds:
                put(fd, buffer, number)
            server.sendall(number.to_bytes(WORD, "little"))
            if len(server.recv(WORD, socket.MSG_WAITALL)) != WORD:
                raise OSError("the server is gone")
        except OSError as error:
            print(f"write {number}: {error}", file=sys.stderr)
            errors += 1
        longest = max(longest, time.monotonic() - start)
        os.pwrite(seen, b"%20d" % number, 0)
    print(json.dumps({"acked": number, "errors": errors, "longest_s": round(longest, 3)}))


if sys.argv[1] == "serve":
    serve(*sys.argv[2:])
elif sys.argv[1] == "write":
    write(*sys.argv[2:])
else:
    print(number_of(sys.argv[2]))
