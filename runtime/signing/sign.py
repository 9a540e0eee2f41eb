"""Signing a bundle: its manifest, with name, version and a counter."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import InvalidBundle, InvalidConfig, UntrustedBundle
from runtime.signing.seal import MAX_COUNTER, Seal, key_id, read_seal
from runtime.signing.trust import read_signature
from runtime.spec import SIGNATURE, parse_manifest
from runtime.store import Store
from runtime.vetting.bundle_files import BundleFolder

if TYPE_CHECKING:
    from minisign import SecretKey


def sign_bundle(store: Store, reference: str, key: "SecretKey", counter: int | None) -> Seal:
    """Check a bundle as a daemon would, and write its signature beside the manifest.

    Args:
        store: where it is.
        reference: ``name`` or ``name@version``.
        key: to sign with.
        counter: to sign with it; None: as `next_counter`.

    Returns:
        What was signed.

    Raises:
        UnknownName, InvalidBundle: there is no such bundle, or it is not sound.
        InvalidConfig: there can be no such counter, or the signature cannot be written.
    """
    policy = store.load(reference)
    manifest = policy.manifest
    folder = store.find(policy.label)
    with BundleFolder(folder) as bundle:
        text = bundle.manifest()
    if parse_manifest(text, policy.label) != manifest:
        raise InvalidBundle(f"{folder} has changed while it was checked: sign it again")
    if counter is None:
        counter = next_counter(store, manifest.name, manifest.version)
    if not 1 <= counter <= MAX_COUNTER:
        raise InvalidConfig(f"the counter is {counter}, expected 1 to {MAX_COUNTER}")
    signer = key_id(key.get_public_key().to_base64())
    seal = Seal(manifest.name, manifest.version, counter, signer)
    signature = key.sign(
        text,
        untrusted_comment=f"signature by the key {signer}",
        trusted_comment=seal.line(int(time.time())),
    )
    _write(folder, bytes(signature) + b"\n")
    return seal


def next_counter(store: Store, name: str, version: int) -> int:
    """The counter of a bundle: the one that it has, for who signs it once more with another key
    makes nothing newer; else one more than its other versions have, and no less than `version`.
    """
    counters = {v: _counter(store, f"{name}@{v}") for v in store.versions(name)}
    return counters[version] or max(version, 1 + max(counters.values()))


def _counter(store: Store, label: str) -> int:
    """What the signature that is there says, whoever made it; 0 if there is none."""
    with BundleFolder(store.find(label)) as bundle:
        content = bundle.signature()
    if content is None:
        return 0
    try:
        return read_seal(label, read_signature(label, content).trusted_comment, "").counter
    except UntrustedBundle:
        return 0


def _write(folder: Path, content: bytes) -> None:
    """Put the signature in place at once: a daemon may be reading."""
    partial = folder.with_name(f".{folder.name}.{SIGNATURE}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, folder / SIGNATURE)
    except OSError as error:
        raise InvalidConfig(f"{folder / SIGNATURE} cannot be written: {error.strerror}") from None
