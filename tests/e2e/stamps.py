# SPDX-License-Identifier: Apache-2.0
"""Reads stamper.c's stamps off the LUN's raw file, from the host: who wrote each sector last.

Happy path: region() takes a volume's bytes by its segment map, census() counts the sectors of each writer, thin_region()
has qemu-img read a QCOW2 volume from a sparse copy. Failure modes: a sector without a sound stamp counts as writer 0; a
region shorter than asked for is a Failed; a QCOW2 that qemu-img does not read is a Failed with its words.
"""

import collections
import os
import re
import struct
import subprocess
import tempfile

from harness import Failed

SECTOR = 512
LAYOUT = struct.Struct("<8sIIQQQQ")  # struct stamp of stamper.c
MAGIC = b"LUNSTAMP"
COPY_CHUNK = 1 << 20

Stamp = collections.namedtuple("Stamp", "id sector seq wall_ns boot_ns")


def segments(table, lun_device):
    """[(length, place on the LUN)] in bytes, in order, from `dmsetup table` of an L map; its tail is left out."""
    found = []
    for line in table.strip().splitlines():
        m = re.fullmatch(r"(\d+) (\d+) linear (\d+:\d+) (\d+)", line.strip())
        if not m or m[3] != lun_device:
            break
        found.append((int(m[2]) * SECTOR, int(m[4]) * SECTOR))
    if not found:
        raise Failed(f"no segment on {lun_device} in {table!r}")
    return found


def region(lun_path, parts, size):
    data = b""
    with open(lun_path, "rb", buffering=0) as f:
        for length, place in parts:
            data += os.pread(f.fileno(), min(length, size - len(data)), place)
            if len(data) == size:
                return data
    raise Failed(f"the segments {parts} hold {len(data)} of {size} bytes")


def thin_region(lun_path, parts, size):
    """The first `size` bytes that a QCOW2 on those segments shows."""
    with tempfile.NamedTemporaryFile(suffix=".qcow2") as copy, open(lun_path, "rb", buffering=0) as f:
        at = 0
        for length, place in parts:
            for off in range(0, length, COPY_CHUNK):
                chunk = os.pread(f.fileno(), min(COPY_CHUNK, length - off), place + off)
                if chunk.strip(b"\0"):
                    os.pwrite(copy.fileno(), chunk, at + off)
            at += length
        copy.truncate(at)
        with tempfile.NamedTemporaryFile() as raw:
            r = subprocess.run(["qemu-img", "dd", "-f", "qcow2", "-O", "raw", f"bs={size}", "count=1", f"if={copy.name}",
                                f"of={raw.name}"], capture_output=True, text=True)
            if r.returncode:
                raise Failed(f"qemu-img: {r.stderr.strip()}")
            return raw.read(size)


def stamp_of(data, n):
    """Sector n's stamp, None if it is not a sound one of this place."""
    magic, writer, sector, seq, wall, boot, check = LAYOUT.unpack_from(data, n * SECTOR)
    sound = magic == MAGIC and sector == n and check == writer ^ (sector << 32) ^ seq ^ wall ^ boot
    return Stamp(writer, sector, seq, wall, boot) if sound else None


def stamps_by(data, writer):
    """Sound stamps of one writer; the byte of its identity is looked at first, as 8192 unpackings take a while."""
    low = data[8::SECTOR]
    found = (stamp_of(data, n) for n in range(len(low)) if low[n] == writer & 0xFF)
    return [s for s in found if s and s.id == writer]


def census(data):
    """{writer: sectors}; 0 stands for sectors without a sound stamp."""
    found = (stamp_of(data, n) for n in range(len(data) // SECTOR))
    return dict(collections.Counter(s.id if s else 0 for s in found))
