"""What a bundle has to pass before the daemon uses it: its signature, and a trial."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from runtime.config import ServeConfig
from runtime.errors import UntrustedBundle
from runtime.signing.seal import Seal
from runtime.signing.trust import Trust
from runtime.spec import Manifest
from runtime.vetting.bundle_files import MAX_FILE_BYTES
from runtime.vetting.passed import Passed
from runtime.vetting.vet import Limits, vet


@dataclass(frozen=True)
class Admission:
    """The rules by which bundles are let in."""

    trust: Trust = field(default_factory=Trust)
    limits: Limits = field(default_factory=Limits)
    max_file_bytes: int = MAX_FILE_BYTES
    passed: Passed | None = None
    """Those that need not be tried again; None: all are."""

    @classmethod
    def of(cls, config: ServeConfig, passed: Passed | None = None) -> Self:
        """As configured.

        Raises:
            InvalidConfig: as `Trust.of`.
        """
        signing, bundles = config.signing, config.bundles
        return cls(
            Trust.of(signing.trusted_keys, signing.require_signature),
            Limits(bundles.trial_s, bundles.trial_memory_mib << 20),
            bundles.max_file_mib << 20,
            passed,
        )

    def try_out(self, label: str, manifest: bytes, files: Mapping[str, bytes]) -> None:
        """Let another process load and replay a bundle.

        Raises:
            InvalidBundle: as `vet`.
        """
        if self.passed is not None and self.passed.has(manifest):
            return
        vet(label, manifest, files, self.limits)
        if self.passed is not None:
            self.passed.add(manifest)


def check_owner(seal: Seal | None, manifest: Manifest) -> None:
    """See that a signature is of the policy that its manifest describes.

    Raises:
        UntrustedBundle: it is of another.
    """
    if seal is not None and (seal.name, seal.version) != (manifest.name, manifest.version):
        raise UntrustedBundle(
            f"{manifest.name}@{manifest.version} has the signature of {seal.name}@{seal.version}"
        )
