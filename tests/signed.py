"""Keys and signatures for tests, made as an operator makes them."""

from pathlib import Path

from minisign import SecretKey

from runtime.signing.secret_key import make_key, read_key
from runtime.signing.sign import sign_bundle
from runtime.spec import MANIFEST, SIGNATURE
from runtime.store import Store


class Signer:
    """Somebody who signs bundles."""

    def __init__(self, folder: Path, name: str = "key"):
        self.public = make_key(folder / name, None)
        self.secret: SecretKey = read_key(folder / name)

    def sign(self, bundle: Path, counter: int | None = None) -> int:
        """Sign a bundle; the counter."""
        store = Store(bundle.parents[1])
        return sign_bundle(
            store, f"{bundle.parent.name}@{bundle.name}", self.secret, counter
        ).counter

    def sign_with(self, bundle: Path, comment: str, prehash: bool = True) -> None:
        """Sign a bundle with any comment."""
        text = (bundle / MANIFEST).read_bytes()
        signature = self.secret.sign(text, prehash=prehash, trusted_comment=comment)
        (bundle / SIGNATURE).write_bytes(bytes(signature))
