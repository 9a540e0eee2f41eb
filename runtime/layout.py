"""Where everything of one session lies in its record of a slab file.

    slab     file header (4096 bytes), then `capacity` records
    record   header | slot 0 | slot 1 | last good slot | ring of transitions
    header   session u64 | commit u64 | previous policy | owner's public key (texts, zero-padded)
    slot     head (`Head`) | options | applied action | last reply | carry tensors
    entry    seq u64 | boundary u32 | crc u32 | obs, prev_action, prev_reward, prev_done

The commit word tells the slot that counts: number n lies in slot n & 1. All integers and
floats are little-endian; sizes are in bytes unless they are said to be in floats.
"""

import math
import mmap
import struct
from functools import cached_property
from typing import NamedTuple

import numpy as np

from runtime.messages import HEADER_SIZE
from runtime.spec import Manifest

LAYOUT_VERSION = 1
FILE_HEADER_SIZE = 4096
RECORD_HEADER_SIZE = 256
LABEL_SIZE = 128
OWNER_AT, OWNER_SIZE = 16 + LABEL_SIZE, 40
"""In the record's header; zero where the session was opened without a key, as by older daemons."""
WORD = struct.Struct("<Q")
ENTRY = struct.Struct("<QII")
CRC = struct.Struct("<I")


class Head(NamedTuple):
    """The numbers of a slot."""

    next_seq: int
    ring_count: int
    generation: int
    flags: int
    """Of `sessions.SessionFlag`."""
    adaptation: int
    monitor_steps: int
    probation: int
    """Ticks for which the policy is still on trial after a swap."""
    seen_s: int
    """When the session last ticked, seconds since 1970."""
    steps: int
    repeated: int
    gaps: int
    missed: int
    limited: int
    refused: int
    swaps: int
    stale: int


# crc, size of the reply, commit number, then a `Head`
HEAD = struct.Struct("<IIQQQIIIIIxxxxQ8Q")


class TensorPlace(NamedTuple):
    """One carry tensor in a slot."""

    name: str
    offset: int
    size: int
    shape: tuple[int, ...]
    dtype: str


def _aligned(offset: int, to: int = 8) -> int:
    return -(-offset // to) * to


class Layout:
    """Offsets and sizes for one policy and ring size."""

    def __init__(self, manifest: Manifest, ring_size: int):
        """
        Args:
            manifest: gives the sizes of observation, action, options and carry.
            ring_size: transitions kept per session.
        """
        self.ring_size = ring_size
        self.obs_size, self.action_size = manifest.obs_size, manifest.action_size
        self.row_bytes = 4 * (self.obs_size + self.action_size + 2)
        self.options = HEAD.size
        self.applied = self.options + 4 * len(manifest.options)
        self.reply = self.applied + 4 * self.action_size
        self.reply_limit = HEADER_SIZE + 8 * self.action_size
        offset = _aligned(self.reply + self.reply_limit)
        self.tensors: list[TensorPlace] = []
        for c in manifest.carry:
            size = math.prod(c.shape) * np.dtype(c.dtype).itemsize
            self.tensors.append(TensorPlace(c.name, offset, size, tuple(c.shape), c.dtype))
            offset = _aligned(offset + size)
        self.slot_size = offset
        self.entry_size = _aligned(ENTRY.size + self.row_bytes)
        self.good = self.slot(2)
        """Offset of the last good slot in a record."""
        self.ring = self.slot(3)
        """Offset of the ring in a record."""
        self.entries = ring_size + 1
        """Of the ring: one more than it keeps, so that a write that is not yet committed
        overwrites nothing that counts."""

    @cached_property
    def record_size(self) -> int:
        """Of one session, whole pages."""
        return _aligned(self.ring + self.entries * self.entry_size, mmap.ALLOCATIONGRANULARITY)

    def slot(self, k: int) -> int:
        """Offset of slot k in a record."""
        return RECORD_HEADER_SIZE + k * self.slot_size
