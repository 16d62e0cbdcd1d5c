# SPDX-License-Identifier: Apache-2.0
"""Runs in a node: a checksummed writer whose device shows, at any instant, exactly how far it had come.

usage: ring_writer.py write DEVICE STOPFILE ACKFILE   until STOPFILE is there; then one JSON line {"acked", "errors", "longest_s"}
       ring_writer.py check DEVICE                    one JSON line {"position"}: the number of the last write in it

The first BLOCKS blocks of DEVICE are written one after the other, again and again, with O_DIRECT and one write at a time;
each carries its number and a checksum. So at any instant the blocks up to one hold the numbers of this round and the rest
those of the round before: check finds that one. Anything else (a block that is damaged, of another round, or torn) is
no instant, and an error. The number of the last write that was acknowledged stands in ACKFILE.
"""

import hashlib
import json
import mmap
import os
import sys
import time

SIZE = 65536
BLOCKS = 64


def block(number):
    head = number.to_bytes(8, "little")
    body = hashlib.sha256(head).digest() * ((SIZE - 40) // 32)
    return (head + hashlib.sha256(body).digest() + body).ljust(SIZE, b"\0")


def write(device, stop, ack):
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    seen = os.open(ack, os.O_RDWR | os.O_CREAT, 0o600)
    buffer = mmap.mmap(-1, SIZE)
    number = position(device) + 1
    errors, longest = 0, 0.0
    while not os.path.exists(stop):
        buffer[:] = block(number)
        start = time.monotonic()
        try:
            os.pwrite(fd, buffer, number % BLOCKS * SIZE)
        except OSError as error:
            print(f"write {number}: {error}", file=sys.stderr)
            errors += 1
        longest = max(longest, time.monotonic() - start)
        os.pwrite(seen, b"%20d" % number, 0)
        number += 1
    print(json.dumps({"acked": number - 1, "errors": errors, "longest_s": round(longest, 3)}))


def position(device):
    """The number of the last write; 0 for a device that is all zeroes."""
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, SIZE)
    numbers = []
    for i in range(BLOCKS):
        if os.preadv(fd, [buffer], i * SIZE) != SIZE:
            sys.exit(f"block {i} cannot be read")
        number = int.from_bytes(buffer[:8], "little")
        if number == 0 and not any(buffer[:]):
            numbers.append(0)
        elif buffer[:] != block(number) or number % BLOCKS != i:
            sys.exit(f"block {i} is damaged (it says {number})")
        else:
            numbers.append(number)
    os.close(fd)
    last = max(numbers)
    for i, number in enumerate(numbers):
        want = last - (last - i) % BLOCKS  # the newest number that belongs to this block
        if number != max(want, 0):
            sys.exit(f"block {i} holds write {number}, not {want}: no instant (the last write is {last})")
    return last


if sys.argv[1] == "write":
    write(*sys.argv[2:])
else:
    print(json.dumps({"position": position(sys.argv[2])}))
