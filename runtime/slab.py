"""A slab: the file in which all sessions of one policy live, memory-mapped.

The file is as long as `capacity` records from the start and sparse: a record takes room
on the disk when a session is opened. runtime/layout.py says where everything lies.
"""

import mmap
import os
import struct
from collections import deque
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from runtime.errors import AdaptdError
from runtime.layout import CRC, FILE_HEADER_SIZE, LABEL_SIZE, LAYOUT_VERSION, Layout
from runtime.memory import Memory
from runtime.spec import Manifest

MAGIC = b"ADSLAB\0\0"
# crc, layout version, ring size, record size, capacity, policy digest, carry digest, label
_HEADER = struct.Struct(f"<II8sQQQ32s32s{LABEL_SIZE}s")
SUFFIX = ".slab"


class SlabRefused(Exception):
    """A file that is no slab of this version, and why."""


class NoRoom(AdaptdError):
    """The state folder or the slab is full."""


class Slab:
    """An open slab file."""

    def __init__(self, path: Path, manifest: Manifest, ring_size: int, capacity: int):
        """Make the file, or open one that was made for the same policy.

        Args:
            path: of the file.
            manifest: of the policy.
            ring_size: transitions kept per session; an existing file keeps its own.
            capacity: most sessions; an existing file grows to it.

        Raises:
            SlabRefused: the file is of another version, policy or carry, or is broken.
            NoRoom: it cannot be made.
        """
        self.path, self.manifest = path, manifest
        exists = path.exists() and path.stat().st_size > 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NoRoom(f"{path} cannot be written: {error.strerror}") from None
        if exists:
            try:
                ring_size, before = self._check_header()
                capacity = max(capacity, before)
            except SlabRefused:
                os.close(self._file)
                raise
        self.layout, self.capacity = Layout(manifest, ring_size), capacity
        size = FILE_HEADER_SIZE + capacity * self.layout.record_size
        try:
            self._write_header()
            os.ftruncate(self._file, size)
            self._map = mmap.mmap(self._file, size)
        except OSError as error:
            os.close(self._file)
            if not exists:
                path.unlink()
            raise NoRoom(f"no room for {path}: {error.strerror}") from None
        self._view = memoryview(self._map)
        self._free: deque[int] = deque()
        self._find_free()

    def _check_header(self) -> tuple[int, int]:
        """Ring size and capacity of the file."""
        header = os.pread(self._file, FILE_HEADER_SIZE, 0)
        if len(header) < FILE_HEADER_SIZE or header[8:16] != MAGIC:
            raise SlabRefused("it is no slab")
        crc, version, _, ring, record, capacity, policy, carry, _ = _HEADER.unpack_from(header)
        if version != LAYOUT_VERSION:
            raise SlabRefused(f"its layout is version {version}, this is {LAYOUT_VERSION}")
        if crc != crc32(header[CRC.size : _HEADER.size]):
            raise SlabRefused("its header is corrupt")
        if carry != self.manifest.carry_digest:
            raise SlabRefused("its sessions have a carry of other tensors")
        if policy != self.manifest.digest:
            raise SlabRefused("the policy has changed since, under the same version")
        if record != Layout(self.manifest, ring).record_size:
            raise SlabRefused(f"its records have {record} bytes")
        size = os.fstat(self._file).st_size
        if size < FILE_HEADER_SIZE + capacity * record:
            raise SlabRefused(f"it is truncated to {size} bytes")
        return ring, capacity

    def _write_header(self) -> None:
        label = f"{self.manifest.name}@{self.manifest.version}".encode()
        header = bytearray(_HEADER.size)
        _HEADER.pack_into(
            header, 0, 0, LAYOUT_VERSION, MAGIC, self.layout.ring_size, self.layout.record_size,
            self.capacity, self.manifest.digest, self.manifest.carry_digest, label,
        )  # fmt: skip
        CRC.pack_into(header, 0, crc32(memoryview(header)[CRC.size :]))
        os.pwrite(self._file, bytes(header), 0)

    def _find_free(self) -> None:
        """Sort records into those that hold something and those that do not."""
        self.used: list[int] = []
        end, at = FILE_HEADER_SIZE + self.capacity * self.layout.record_size, 0
        for i in self._with_data(end):
            self._free.extend(range(at, i))
            at = i + 1
            session, commit = struct.unpack_from("<QQ", self._view, self._offset(i))
            if session and commit:
                self.used.append(i)
            else:
                self._free.appendleft(i)  # it has its room on the disk already
        self._free.extend(range(at, self.capacity))

    def _with_data(self, end: int) -> list[int]:
        """Records with room on the disk; holes are not read."""
        found, at = [], FILE_HEADER_SIZE
        while at < end:
            try:
                at = os.lseek(self._file, at, os.SEEK_DATA)
                hole = os.lseek(self._file, at, os.SEEK_HOLE)
            except OSError:  # nothing but a hole up to the end
                break
            first = max(0, at - FILE_HEADER_SIZE) // self.layout.record_size
            last = max(0, min(hole, end) - FILE_HEADER_SIZE - 1) // self.layout.record_size
            found += range(max(first, found[-1] + 1 if found else 0), last + 1)
            at = hole
        return found

    def _offset(self, i: int) -> int:
        return FILE_HEADER_SIZE + i * self.layout.record_size

    def record(self, i: int) -> Memory:
        """The memory in record i."""
        a, size = self._offset(i), self.layout.record_size
        return Memory(
            self.layout,
            self._view[a : a + size],
            release=lambda: self._free.appendleft(i),  # the next one to be taken
            rest=lambda: self._rest(a, size),
        )

    def _rest(self, start: int, size: int) -> None:
        with suppress(OSError):  # memory that is locked stays
            self._map.madvise(mmap.MADV_DONTNEED, start, size)

    def allocate(self) -> Memory:
        """A record that nobody has, with its room on the disk taken.

        Raises:
            NoRoom: there is none.
        """
        try:
            i = self._free.popleft()
        except IndexError:
            raise NoRoom(f"{self.path} holds {self.capacity} sessions already") from None
        try:
            # Without this a write to a full disk would end the process by SIGBUS.
            os.posix_fallocate(self._file, self._offset(i), self.layout.record_size)
        except OSError as error:
            self._free.appendleft(i)
            raise NoRoom(f"no room for a session in {self.path}: {error.strerror}") from None
        memory = self.record(i)
        memory.touch()
        return memory

    def sync(self) -> None:
        """Wait until what is written is on the disk."""
        os.fdatasync(self._file)

    def close(self) -> None:
        """Let go of the file; its memories must not be used any more."""
        os.close(self._file)
