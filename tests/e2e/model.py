# SPDX-License-Identifier: Apache-2.0
"""The reference model of test_model.py: what every block of every volume and snapshot may hold. Pure.

A block is the set of write ids that it may show; 0 is "zeroes". A write that was answered leaves one id; one that was cut
off, or a discard, leaves the old ones as well, until somebody has looked: what was seen once must be seen again. A snapshot
under a writer may show or not show each of his pieces; but he waits for each before the next, so it shows all before the last
that it shows (Order), and so do the snapshots of a group together.

Failure modes: a block that shows what it may not: Wrong, with volume, block, what it shows and what it may.
"""


class Wrong(Exception):
    """Bytes that nobody wrote there."""


ZERO = frozenset((0,))


class Disk:
    """The blocks of a volume or a snapshot; a block without an entry is zeroes."""

    def __init__(self, size, blocks=None):
        self.size, self.blocks = size, dict(blocks or {})

    def copy(self, size=0):
        return Disk(max(size, self.size), self.blocks)

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
    def __init__(self, disk, thick=False):
        self.disk, self.thick = disk, thick
        self.node = None  # attached there
        self.device = None


class Snapshot:
    def __init__(self, volume, disk):
        self.volume, self.disk = volume, disk


class Order:
    """What one writer wrote while snapshots of one instant were taken: (snapshot, id, first, count), in his order."""

    def __init__(self, pieces):
        self.pieces = pieces

    def check(self, snapshots):
        """Of those that still are; all of them have been looked at."""
        pieces = [p for p in self.pieces if p[0] in snapshots]
        last = max((i for i, (s, write_id, first, n) in enumerate(pieces)
                    if any(write_id in snapshots[s].disk.may(b) for b in range(first, first + n))), default=None)
        if last is None:
            return
        expected = {(s, b): i for s, i, first, n in pieces[:last] for b in range(first, first + n)}
        s, newest, first, n = pieces[last]
        for (name, block), write_id in expected.items():
            shown = snapshots[name].disk.may(block)
            if write_id not in shown and not (name == s and first <= block < first + n):
                raise Wrong(f"{name}: block {block} shows {sorted(shown)}, not {write_id}, but {s} shows {newest}, written later")


class Pool:
    def __init__(self):
        self.volumes, self.snapshots, self.orders = {}, {}, []

    def create(self, name, size, thick=False):
        self.volumes[name] = Volume(Disk(size), thick)

    def snapshot(self, volume, name):
        self.snapshots[name] = Snapshot(volume, self.volumes[volume].disk.copy())

    def clone(self, snapshot, name, size=0):
        self.volumes[name] = Volume(self.snapshots[snapshot].disk.copy(size))

    def clone_volume(self, volume, name, size=0):
        self.volumes[name] = Volume(self.volumes[volume].disk.copy(size))

    def rollback(self, volume, snapshot):
        v = self.volumes[volume]
        v.disk = self.snapshots[snapshot].disk.copy(v.disk.size)

    def check_orders(self):
        for order in self.orders:
            order.check(self.snapshots)

    def thin(self):
        return sorted(name for name, v in self.volumes.items() if not v.thick)
