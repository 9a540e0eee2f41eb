"""Whose signatures count: the daemon's side of signing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.errors import InvalidConfig, UntrustedBundle
from runtime.extras import need
from runtime.signing.seal import Seal, key_id, read_seal
from runtime.spec import SIGNATURE

if TYPE_CHECKING:
    from minisign import PublicKey, Signature


@dataclass(frozen=True)
class Trust:
    """Trusted keys, and whether a bundle without a signature may be used."""

    keys: Sequence["PublicKey"] = ()
    required: bool = False

    @classmethod
    def of(cls, keys: Sequence[str], required: bool) -> "Trust":
        """From the configuration.

        Args:
            keys: public keys, each the base64 line of its file; two while one replaces the other.
            required: whether every bundle must be signed by one of them.

        Raises:
            InvalidConfig: one is no key, there is none though one is required, or the extra
                that reads them is not installed.
        """
        if required and not keys:
            raise InvalidConfig(
                "signing.require_signature is on and signing.trusted_keys is empty, so that no "
                "bundle could be served: make a key by `adaptd signing-key FILE` and list it"
            )
        if not keys:
            return cls()
        need("sign", "minisign")
        return cls(tuple(public_key(key) for key in keys), required)

    def check(self, where: str, manifest: bytes, signature: bytes | None) -> Seal | None:
        """See who signed a manifest.

        Args:
            where: whose it is, for the error.
            manifest: the content of the manifest.
            signature: the content of its signature; None if there is none.

        Returns:
            What was signed with it. None where no keys are trusted, or where there is no
            signature and none is required.

        Raises:
            UntrustedBundle: it is not signed though it must be, or the signature is broken, of
                other content, or by a key that is not trusted.
        """
        if not self.keys:
            return None
        if signature is None:
            if self.required:
                raise UntrustedBundle(
                    f"{where} is not signed: {SIGNATURE} is missing, and a signature by "
                    f"{' or '.join(self.key_ids())} is required; `adaptd sign` writes one"
                )
            return None
        return self._checked(where, manifest, signature)

    def key_ids(self) -> list[str]:
        """Ids of the trusted keys."""
        return [key_id(key.to_base64()) for key in self.keys]

    def _checked(self, where: str, manifest: bytes, content: bytes) -> Seal:
        from minisign import VerifyError

        signature = read_signature(where, content)
        signer = key_id(bytes(signature).splitlines()[1])
        known = dict(zip(self.key_ids(), self.keys, strict=True))
        if signer not in known:
            raise UntrustedBundle(
                f"{where} is signed by the key {signer}, trusted are {', '.join(known)}"
            )
        try:
            known[signer].verify(manifest, signature)
        except VerifyError:
            raise UntrustedBundle(
                f"{where}: the signature by the key {signer} is of another manifest, or has "
                f"been changed"
            ) from None
        return read_seal(where, signature.trusted_comment, signer)


def public_key(text: str) -> "PublicKey":
    """A public key from its base64 line.

    Raises:
        InvalidConfig: it is none.
    """
    from minisign import ParseError, PublicKey

    try:
        return PublicKey.from_base64(text.strip())
    except ParseError as error:
        raise InvalidConfig(
            f"{text[:60]!r} is no minisign public key ({error}): expected the second line of the "
            f"file that `adaptd signing-key` wrote, 56 characters that begin with RW"
        ) from None


def read_signature(where: str, content: bytes) -> "Signature":
    """A signature from its file's content, whoever made it.

    Args:
        where: whose it is, for the error.
        content: of the file.

    Raises:
        UntrustedBundle: it is none, or of a kind that does not bind its comment.
    """
    from minisign import ParseError, Signature

    try:
        signature = Signature.from_bytes(content)
    except (ParseError, ValueError) as error:
        raise UntrustedBundle(f"{where}: {SIGNATURE} is no signature: {error}") from None
    if not signature.is_prehashed():
        # Of the older kind the signed comment could be passed off as a signed file.
        raise UntrustedBundle(
            f"{where}: {SIGNATURE} is of minisign's legacy kind, expected a prehashed one"
        )
    return signature
