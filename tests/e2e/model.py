# SPDX-License-Identifier: Apache-2.0
"""The reference model of test_model.py: what every block of every volume and snapshot may hold. Pure.

A block is the set of write ids that it may show; 0 is "zeroes". A write that was answered leaves one id; one that was cut
off, or a discard, leaves the old ones as well, until somebody has looked: what was seen once must be seen again.

Failure modes: a block that shows what it may not: Wrong, with volume, block, what it shows and what it may.
"""


class Wrong(Exception):
    """Bytes that nobody wrote there."""


ZERO = frozenset((0,))


class Disk:
    """The blocks of a volume or a snapshot; a block without an entry is zeroes."""

    def __init__(self, size, blocks=None):
        self.size, self.blocks = size, dict(blocks or {})

    def copy(self):
        return Disk(self.size, self.blocks)

    def may(self, block):
        return self.blocks.get(block, ZERO)

    def wrote(self, write_id, first, count):
        for b in range(first, first + count):
            self.blocks[b] = frozenset((write_id,))

    def perhaps_wrote(self, write_id, first, count):
        for b in range(first, first + count):
            self.blocks[b] = self.may(b) | {write_id}

    def perhaps_discarded(self, first, count):
        self.perhaps_wrote(0, first, count)

    def zeroed(self, first, count):
        self.wrote(0, first, count)

    def looked(self, name, runs):
        """`runs`: (first, count, id) of all blocks, in order."""
        at = 0
        for first, count, write_id in runs:
            if first != at:
                raise Wrong(f"{name}: the dump jumps from block {at} to {first}")
            for b in range(first, first + count):
                if write_id not in self.may(b):
                    raise Wrong(f"{name}: block {b} shows {write_id}, it may show {sorted(self.may(b))}")
                if len(self.may(b)) > 1:
                    self.blocks[b] = frozenset((write_id,))
            at = first + count
        if at != self.size:
            raise Wrong(f"{name}: {at} blocks, not {self.size}")


class Volume:
    def __init__(self, disk):
        self.disk = disk
        self.node = None  # attached there
        self.device = None


class Snapshot:
    def __init__(self, volume, disk):
        self.volume, self.disk = volume, disk


class Pool:
    def __init__(self):
        self.volumes, self.snapshots = {}, {}

    def create(self, name, size):
        self.volumes[name] = Volume(Disk(size))

    def snapshot(self, volume, name):
        self.snapshots[name] = Snapshot(volume, self.volumes[volume].disk.copy())

    def clone(self, snapshot, name):
        self.volumes[name] = Volume(self.snapshots[snapshot].disk.copy())

    def clone_volume(self, volume, name):
        self.volumes[name] = Volume(self.volumes[volume].disk.copy())

    def rollback(self, volume, snapshot):
        size = self.volumes[volume].disk.size
        self.volumes[volume].disk = self.snapshots[snapshot].disk.copy()
        self.volumes[volume].disk.size = max(size, self.volumes[volume].disk.size)
