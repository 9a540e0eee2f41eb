"""A bundle's files, each read once: what is checked is what is used, whatever the disk does."""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InvalidBundle, UnsafeBundle
from runtime.spec import DOCUMENTS, MANIFEST, SIGNATURE, Manifest, file_record

MAX_MANIFEST_BYTES = 4 << 20
MAX_SIGNATURE_BYTES = 16 << 10
MAX_FILE_BYTES = 256 << 20
MOST_TOGETHER = 2
"""The files of a bundle together, in largest files: all of them are in memory at once."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""No link is followed, and a pipe does not hold us up."""


@dataclass
class BundleFolder:
    """A bundle's folder, held open: one that is moved into its place is another one."""

    path: Path

    def __enter__(self) -> "BundleFolder":
        try:
            self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise InvalidBundle(f"{self.path} cannot be read: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)

    def manifest(self) -> bytes:
        """The content of the manifest.

        Raises:
            InvalidBundle: as `_read`.
        """
        return self._read(MANIFEST, MAX_MANIFEST_BYTES)

    def signature(self) -> bytes | None:
        """The content of its detached signature; None if there is none."""
        if SIGNATURE not in os.listdir(self._folder):
            return None
        return self._read(SIGNATURE, MAX_SIGNATURE_BYTES)

    def listed(self, manifest: Manifest, most_bytes: int = MAX_FILE_BYTES) -> dict[str, bytes]:
        """The content of every file that the manifest lists, as it describes them.

        Args:
            manifest: of this bundle.
            most_bytes: the size of a file that is not read any more; `MOST_TOGETHER` times
                that, of all of them.

        Raises:
            UnsafeBundle: one is too large or no plain file, they are so together, or there
                are files besides.
            InvalidBundle: one is missing, or of another size or hash.
        """
        expected = {MANIFEST, SIGNATURE, *DOCUMENTS, *manifest.files}
        besides = sorted(set(os.listdir(self._folder)) - expected)
        if besides:
            raise UnsafeBundle(
                f"{self.path} holds {besides[0]!r}, which the manifest does not list "
                f"(and {len(besides) - 1} more): delete it, or list it with its hash and size"
            )
        together = sum(record.size for record in manifest.files.values())
        if together > MOST_TOGETHER * most_bytes:
            raise UnsafeBundle(
                f"{self.path}: its files have {together} bytes together, more than the "
                f"{MOST_TOGETHER * most_bytes} allowed"
            )
        return {name: self._as_described(name, manifest, most_bytes) for name in manifest.files}

    def _as_described(self, name: str, manifest: Manifest, most_bytes: int) -> bytes:
        expected = manifest.files[name]
        content = self._read(name, most_bytes)
        found = file_record(content)
        if found != expected:
            raise InvalidBundle(
                f"{self.path}: {name} is not the file the manifest describes: found {found.size} "
                f"bytes with sha256 {found.sha256[:12]}..., expected {expected.size} bytes with "
                f"{expected.sha256[:12]}..."
            )
        return content

    def _read(self, name: str, most_bytes: int) -> bytes:
        """The content of a plain file.

        Raises:
            UnsafeBundle: it is a link, a pipe or the like, or larger than `most_bytes`.
            InvalidBundle: it cannot be read.
        """
        where = f"{self.path}: {name}"
        try:
            with open(os.open(name, _FLAGS, dir_fd=self._folder), "rb") as file:
                about = os.fstat(file.fileno())
                if not stat.S_ISREG(about.st_mode):
                    raise UnsafeBundle(f"{where} is no plain file")
                if about.st_size > most_bytes:
                    raise UnsafeBundle(
                        f"{where} has {about.st_size} bytes, more than the {most_bytes} allowed"
                    )
                return file.read(about.st_size + 1)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UnsafeBundle(
                    f"{where} is a link: a bundle's files lie in its folder"
                ) from None
            raise InvalidBundle(f"{where} cannot be read: {error.strerror}") from None
