"""The folder of bundles: what is there, and loading one after checking all of it."""

from dataclasses import dataclass, field
from pathlib import Path

from runtime.errors import BUNDLE_KINDS, InvalidBundle, UnknownName
from runtime.policy import Policy
from runtime.signing.seal import Seal
from runtime.signing.trust import Trust
from runtime.spec import (
    ADAPT,
    GOLDEN,
    MANIFEST,
    POLICY,
    SIGNATURE,
    Manifest,
    parse_manifest,
    split_reference,
)
from runtime.vetting.admission import Admission, check_owner
from runtime.vetting.bundle_files import BundleFolder

_Stamp = tuple[Trust | tuple[int, ...] | None, ...]


@dataclass
class Store:
    """Bundles under one folder, ``<folder>/<name>/<version>/``."""

    folder: Path
    admission: Admission | None = None
    """What bundles have to pass; None: they are the caller's own, and only checked."""
    loaded: dict[str, Policy] = field(default_factory=dict)
    """Policies in memory, by ``name@version``."""
    seals: dict[str, Seal | None] = field(default_factory=dict)
    """What the signatures of those in memory say; None: it is not signed, or no key trusted."""
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BUNDLE_KINDS, 0))
    """How many bundles were refused, by `InvalidBundle.kind`."""
    _stamps: dict[str, _Stamp] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Names that have at least one version."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if _versions(p))

    def versions(self, name: str) -> list[int]:
        """The versions of a bundle, ascending."""
        return _versions(self.folder / name)

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
        with BundleFolder(folder) as bundle:
            return _own_manifest(folder, bundle.manifest())

    def load(self, reference: str) -> Policy:
        """A policy ready to serve: let in, loaded, warmed up by replaying its golden trace.

        One that is in memory already, with the same manifest on disk, is given at once, as long
        as the same keys are trusted.

        Raises:
            UnknownName: there is no such bundle.
            InvalidBundle: with the reason; nothing changes.
        """
        folder = self.find(reference)
        label = f"{folder.parent.name}@{folder.name}"
        known = self.loaded.get(label)
        # To read a manifest holds up other threads for as long as a fast control period.
        stamp = _stamp(folder, self.admission)
        if known is not None and stamp == self._stamps[label]:
            return known
        try:
            policy, seal = self._read(folder, label, known)
        except InvalidBundle as error:
            self.refused[error.kind] += 1
            raise
        self.loaded[label], self.seals[label], self._stamps[label] = policy, seal, stamp
        return policy

    def _read(self, folder: Path, label: str, known: Policy | None) -> tuple[Policy, Seal | None]:
        """A policy from its files, each of which is read once, and its seal."""
        admission = self.admission
        with BundleFolder(folder) as bundle:
            text, seal = bundle.manifest(), None
            if admission is not None:
                seal = admission.trust.check(label, text, bundle.signature())
            manifest = _own_manifest(folder, text)
            check_owner(seal, manifest)
            if known is not None and known.manifest == manifest:
                return known, seal
            files = bundle.listed(manifest, *([admission.max_file_bytes] if admission else []))
        if admission is not None:
            admission.try_out(label, text, files)
        return Policy.verified(manifest, files[POLICY], files[GOLDEN], files.get(ADAPT)), seal


def _own_manifest(folder: Path, text: bytes) -> Manifest:
    """The manifest that a bundle's folder holds."""
    path = folder / MANIFEST
    manifest = parse_manifest(text, str(path))
    found, expected = (manifest.name, str(manifest.version)), (folder.parent.name, folder.name)
    if found != expected:
        raise InvalidBundle(f"{path} says it is {'@'.join(found)}, not {'@'.join(expected)}")
    return manifest


def _stamp(folder: Path, admission: Admission | None) -> _Stamp:
    """What changes when the manifest or its signature does, or whose signatures count."""
    trust = None if admission is None else admission.trust
    return trust, *(_file_stamp(folder / name) for name in (MANIFEST, SIGNATURE))


def _file_stamp(path: Path) -> tuple[int, ...] | None:
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
