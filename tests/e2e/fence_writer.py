# SPDX-License-Identifier: Apache-2.0
"""Runs in a node: writes numbered, checksummed 4 KiB records to a file, each with fsync, until the first error.

usage: fence_writer.py write FILE LOG     one line per record that was acknowledged, "error ERRNO SECONDS" at the end: how long
                                          the call that failed had waited
       fence_writer.py check FILE LOG     prints JSON {"acked", "missing"}: of the acknowledged records, which are not there

Happy path: the last line of LOG says which error ended it. Failure modes: a write that was acknowledged and is not there
afterwards is what the check counts.
"""

import hashlib
import json
import mmap
import os
import sys
import time

SIZE = 4096
PLACES = 2048  # the file stays at 8 MiB: a later round overwrites an earlier one


def record(i):
    head = i.to_bytes(8, "little")
    return (head + hashlib.sha256(head).digest() * 128)[:SIZE]


def write(path, log):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
    buffer = mmap.mmap(-1, SIZE)
    out = open(log, "w", buffering=1, encoding="ascii")
    i = 0
    while True:
        buffer[:] = record(i)
        start = time.monotonic()
        try:
            os.pwrite(fd, buffer, i % PLACES * SIZE)
            os.fsync(fd)
        except OSError as error:
            out.write(f"error {error.errno} {time.monotonic() - start:.1f}\n")
            return
        out.write(f"{i}\n")
        i += 1
        time.sleep(0.01)


def check(path, log):
    acked = [int(line) for line in open(log, encoding="ascii") if not line.startswith("error")]
    newest = {i % PLACES: i for i in acked}
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, SIZE)
    missing = []
    for place, i in newest.items():
        # The one after the last acknowledged may have landed too.
        if os.preadv(fd, [buffer], place * SIZE) != SIZE or buffer[:] not in (record(i), record(i + PLACES)):
            missing.append(i)
    print(json.dumps({"acked": len(acked), "missing": missing}))


{"write": write, "check": check}[sys.argv[1]](*sys.argv[2:])
