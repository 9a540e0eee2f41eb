"""The folder of bundles: what is there, and loading one after checking all of it."""

from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import InvalidBundle, UnknownName
from runtime.policy import Policy
from runtime.spec import (
    ADAPT,
    GOLDEN,
    MANIFEST,
    POLICY,
    Manifest,
    parse_manifest,
    read_verified,
    split_reference,
)

MAX_MANIFEST_BYTES = 4 << 20


@dataclass
class Store:
    """Bundles under one folder, ``<folder>/<name>/<version>/``."""

    folder: Path
    loaded: dict[str, Policy] = field(default_factory=dict)
    """Policies in memory, by ``name@version``."""
    _stamps: dict[str, tuple[int, ...] | None] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Names that have at least one version."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if _versions(p))

    def references(self) -> list[str]:
        """Every ``name@version`` on disk."""
        return [f"{n}@{v}" for n in self.names() for v in _versions(self.folder / n)]

    def find(self, reference: str) -> Path:
        """The bundle's folder that ``name`` (the highest version) or ``name@3`` means.

        Raises:
            UnknownName: there is no such bundle; with those that exist.
            InvalidBundle: it is no reference at all.
        """
        name, version = split_reference(reference)
        versions = _versions(self.folder / name)
        if not versions:
            raise UnknownName("policy", reference, self.names())
        if version is not None and version not in versions:
            raise UnknownName("policy", reference, [f"{name}@{v}" for v in versions])
        return self.folder / name / str(version or versions[-1])

    def manifest(self, reference: str) -> Manifest:
        """The manifest of a bundle, its name and version checked against the folder.

        Raises:
            UnknownName, InvalidBundle: as `find`, or the manifest is missing or wrong.
        """
        folder = self.find(reference)
        path = folder / MANIFEST
        try:
            with open(path, "rb") as file:
                text = file.read(MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            raise InvalidBundle(f"{path} cannot be read: {error.strerror}") from None
        if len(text) > MAX_MANIFEST_BYTES:
            raise InvalidBundle(f"{path} is larger than {MAX_MANIFEST_BYTES} bytes")
        manifest = parse_manifest(text, str(path))
        found, expected = (manifest.name, str(manifest.version)), (folder.parent.name, folder.name)
        if found != expected:
            raise InvalidBundle(f"{path} says it is {'@'.join(found)}, not {'@'.join(expected)}")
        return manifest

    def load(self, reference: str) -> Policy:
        """A policy ready to serve: verified, loaded, warmed up by replaying its golden trace.

        One that is in memory already, with the same manifest on disk, is given at once.

        Raises:
            UnknownName: there is no such bundle.
            InvalidBundle: with the reason; nothing changes.
        """
        folder = self.find(reference)
        label = f"{folder.parent.name}@{folder.name}"
        known = self.loaded.get(label)
        # To read a manifest holds up other threads for as long as a fast control period.
        stamp = _stamp(folder / MANIFEST)
        if known is not None and stamp == self._stamps[label]:
            return known
        manifest = self.manifest(label)
        if known is not None and known.manifest == manifest:
            self._stamps[label] = stamp
            return known
        names = [POLICY, GOLDEN, *([ADAPT] if ADAPT in manifest.files else [])]
        policy = Policy.verified(manifest, *(read_verified(folder, n, manifest) for n in names))
        self.loaded[label], self._stamps[label] = policy, stamp
        return policy


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when a file does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _versions(home: Path) -> list[int]:
    """The versions of a bundle, ascending."""
    if not home.is_dir():
        return []
    found = (p.name for p in home.iterdir() if p.is_dir())
    return sorted(int(v) for v in found if v.isascii() and v.isdigit() and not v.startswith("0"))
