# SPDX-License-Identifier: Apache-2.0
"""Runs in a node: writes numbered, checksummed 64 KiB records to a file with O_DIRECT until told to stop, then reads
all of them back.

usage: writer.py FILE STOPFILE    prints one JSON line {"records", "errors", "wrong", "longest_s"} at the end.
Happy path: every write returns, every record reads back as written. Failure modes are what the line counts.
"""

import hashlib
import json
import mmap
import os
import sys
import time

SIZE = 65536
LIMIT = 3000  # records: the file stays below 200 MiB


def record(i):
    head = i.to_bytes(8, "little")
    body = hashlib.sha256(head).digest() * ((SIZE - 40) // 32)
    return (head + hashlib.sha256(body).digest() + body).ljust(SIZE, b"\0")


def main(path, stop):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_DIRECT, 0o600)
    buffer = mmap.mmap(-1, SIZE)
    n = errors = wrong = 0
    longest = 0.0
    while not os.path.exists(stop) and n < LIMIT:
        buffer[:] = record(n)
        start = time.monotonic()
        try:
            os.pwrite(fd, buffer, n * SIZE)
        except OSError as error:
            print(f"write {n}: {error}", file=sys.stderr)
            errors += 1
        longest = max(longest, time.monotonic() - start)
        n += 1
        time.sleep(0.005)
    os.fsync(fd)
    for i in range(n):
        if os.preadv(fd, [buffer], i * SIZE) != SIZE or buffer[:] != record(i):
            wrong += 1
    print(json.dumps({"records": n, "errors": errors, "wrong": wrong, "longest_s": round(longest, 2)}))


main(*sys.argv[1:])
