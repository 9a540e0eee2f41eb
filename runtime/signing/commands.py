"""`adaptd sign` and `adaptd signing-key`."""

import getpass
from pathlib import Path

import tyro

from runtime.errors import InvalidConfig
from runtime.extras import need
from runtime.signing.secret_key import make_key, read_key
from runtime.signing.sign import sign_bundle
from runtime.spec import SIGNATURE
from runtime.store import Store
from runtime.vetting.admission import Admission

Named = tyro.conf.Positional


def sign(
    policy: Named[str],
    signing_key: Path,
    models: Path = Path("exported_models"),
    counter: int | None = None,
) -> None:
    """Check a bundle as a daemon would, and sign it.

    Args:
        policy: name or name@version.
        signing_key: the file of the secret key, made by `adaptd signing-key` or `minisign -G`.
        models: folder of bundles.
        counter: higher than of all versions that this one replaces; if not given, the one that it
            was signed with before, else one more than its other versions have.
    """
    need("sign", "minisign")
    secret = read_key(signing_key)
    seal = sign_bundle(Store(models, Admission()), policy, secret, counter)
    print(
        f"{seal.name}@{seal.version} is sound, and signed by the key {seal.key} with counter "
        f"{seal.counter}: {SIGNATURE}"
    )


def signing_key(file: Named[Path], password: bool = False) -> None:
    """Make a key to sign bundles with: FILE, which is secret, and FILE.pub.

    Args:
        file: where to write the secret key.
        password: ask for a password to encrypt it with.
    """
    need("sign", "minisign")
    chosen = _new_password() if password else None
    line = make_key(file, chosen)
    print(f"{file} is the secret key: keep it off the robots\n{file}.pub is the public key")
    print("For the configuration of the robots:\n")
    print(f'[signing]\ntrusted_keys = ["{line}"]\nrequire_signature = true')


def _new_password() -> str:
    chosen = getpass.getpass("Password: ")
    if chosen != getpass.getpass("Once more: "):
        raise InvalidConfig("the two passwords differ")
    if not chosen:
        raise InvalidConfig("the password is empty; without --password the key is not encrypted")
    return chosen
