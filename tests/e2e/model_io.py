# SPDX-License-Identifier: Apache-2.0
"""Runs in a node, for test_model.py: writes blocks that say which write they are of, and tells what a device holds.

usage: model_io.py write DEVICES ID:FIRST:COUNT[:DEVICE] ...    blocks of 4 KiB, O_DIRECT, in this order; a line per piece that
                                                                is done; DEVICES: with commas between, DEVICE counts from 0
       model_io.py slowly DEVICES ...                           the same with a rest after each piece
       model_io.py make FILE BLOCKS ID:FIRST:COUNT ...          the same into a new file of that size
       model_io.py dump DEVICE                                  runs of blocks as "FIRST COUNT ID"; ID 0: zeroes; "?": neither

Failure modes: an I/O error is printed and the exit status 1.
"""

import mmap
import os
import stat
import struct
import sys
import time

BLOCK = 4096
PIECE = 256  # blocks in one write or read
REST_S = 0.02


def opened(path, how):
    direct = os.path.exists(path) and stat.S_ISBLK(os.stat(path).st_mode)
    return os.open(path, how | (os.O_DIRECT if direct else 0))


def content(write_id, block):
    return struct.pack("<QQ", write_id, block) * (BLOCK // 16)


def write(fds, pieces, rest=0.0):
    buffer = mmap.mmap(-1, PIECE * BLOCK)
    for piece in pieces:
        write_id, first, count, which = map(int, (piece + ":0").split(":")[:4])
        for at in range(first, first + count, PIECE):
            n = min(PIECE, first + count - at)
            buffer.seek(0)
            buffer.write(b"".join(content(write_id, at + i) for i in range(n)))
            if os.pwrite(fds[which], memoryview(buffer)[: n * BLOCK], at * BLOCK) != n * BLOCK:
                raise OSError("a short write")
        print(piece, flush=True)
        time.sleep(rest)


def make(path, size, pieces):
    fd = opened(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    os.truncate(fd, size * BLOCK)
    write([fd], pieces)


def id_of(data, block):
    write_id, said = struct.unpack_from("<QQ", data)
    if write_id and said == block and data == data[:16] * (BLOCK // 16):
        return write_id
    return 0 if not data.strip(b"\0") else "?"


def blocks(device):
    fd = opened(device, os.O_RDONLY)
    size = os.lseek(fd, 0, os.SEEK_END) // BLOCK
    buffer = mmap.mmap(-1, PIECE * BLOCK)
    zero = bytes(PIECE * BLOCK)
    for at in range(0, size, PIECE):
        n = min(PIECE, size - at)
        if os.preadv(fd, [memoryview(buffer)[: n * BLOCK]], at * BLOCK) != n * BLOCK:
            raise OSError("a short read")
        data = buffer[: n * BLOCK]
        if data == zero[: n * BLOCK]:
            yield from [0] * n
            continue
        for i in range(n):
            yield id_of(data[i * BLOCK : (i + 1) * BLOCK], at + i)


def dump(device):
    first, count, current = 0, 0, None
    for found in blocks(device):
        if found != current:
            if count:
                print(first, count, current)
            first, count, current = first + count, 0, found
        count += 1
    if count:
        print(first, count, current)


def main():
    command, path, *words = sys.argv[1:]
    try:
        if command in ("write", "slowly"):
            write([opened(device, os.O_RDWR) for device in path.split(",")], words, REST_S if command == "slowly" else 0)
        elif command == "make":
            make(path, int(words[0]), words[1:])
        else:
            dump(path)
    except OSError as error:
        print(f"{path}: {error}", file=sys.stderr)
        sys.exit(1)


main()
