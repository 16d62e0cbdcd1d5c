# SPDX-License-Identifier: Apache-2.0
"""Runs in a node: writes 4 KiB blocks that say who wrote them and when, from several threads, until each has an error.

usage: stamp_writer.py flood DEVICE WHO FIRST COUNT LOG    8 threads, round and round over COUNT blocks from FIRST
       stamp_writer.py once DEVICE WHO FIRST COUNT         each block once

Happy path of flood: it goes on until it is refused; the log, made anew every half second and at the end, is one JSON
line {"written", "errors": {errno: n}, "longest_s", "done"}; longest_s is how long the slowest call took, refused ones
included. Failure modes: once exits 1 with the error.
"""

import json
import mmap
import os
import sys
import threading
import time

SIZE = 4096
THREADS = 8


def stamp(buffer, who, block, n):
    buffer[:] = f"{who} {time.time():.6f} block {block} write {n}\n".encode().ljust(SIZE, b".")


class Flood:
    def __init__(self, device, who, first, count):
        self.fd = os.open(device, os.O_RDWR | os.O_DIRECT)
        self.who, self.first, self.count = who, first, count
        self.written, self.longest, self.errors = [0] * THREADS, [0.0] * THREADS, {}

    def thread(self, t):
        buffer = mmap.mmap(-1, SIZE)
        n = t
        while True:
            block = self.first + n % self.count
            stamp(buffer, self.who, block, n)
            start = time.monotonic()
            try:
                os.pwrite(self.fd, buffer, block * SIZE)
                self.written[t] += 1
                refused = None
            except OSError as error:
                refused = error.errno
            self.longest[t] = max(self.longest[t], time.monotonic() - start)
            if refused:
                self.errors[refused] = self.errors.get(refused, 0) + 1
                return
            n += THREADS

    def log(self, path, done):
        with open(path + ".new", "w", encoding="ascii") as f:
            json.dump({"written": sum(self.written), "errors": self.errors, "longest_s": max(self.longest),
                       "done": done}, f)
        os.rename(path + ".new", path)


def flood(device, who, first, count, log):
    f = Flood(device, who, int(first), int(count))
    threads = [threading.Thread(target=f.thread, args=(t,)) for t in range(THREADS)]
    for t in threads:
        t.start()
    while any(t.is_alive() for t in threads):
        time.sleep(0.5)
        f.log(log, False)
    f.log(log, True)


def once(device, who, first, count):
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    chunk = 16
    buffer, big = mmap.mmap(-1, SIZE), mmap.mmap(-1, SIZE * chunk)
    for start in range(int(first), int(first) + int(count), chunk):
        for i in range(chunk):
            stamp(buffer, who, start + i, 0)
            big[i * SIZE:(i + 1) * SIZE] = buffer[:]
        os.pwrite(fd, big, start * SIZE)


{"flood": flood, "once": once}[sys.argv[1]](*sys.argv[2:])
