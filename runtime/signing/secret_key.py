"""Keys to sign with, in minisign's files: made here or by `minisign -G`."""

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import InvalidConfig
from runtime.signing.seal import key_id

if TYPE_CHECKING:
    from minisign import SecretKey


def make_key(path: Path, password: str | None) -> str:
    """Write a new secret key, and its public key beside it as ``PATH.pub``.

    Args:
        path: that does not exist yet.
        password: to encrypt the secret key with; None: the file's mode alone protects it.

    Returns:
        The public key's base64 line.

    Raises:
        InvalidConfig: a file is there already, or cannot be written.
    """
    from minisign import KeyPair

    pair = KeyPair.generate()
    line = pair.public_key.to_base64().decode()
    pair.public_key.untrusted_comment = f"minisign public key {key_id(line)}"
    if password is not None:
        pair.secret_key.encrypt(password)
    public = path.with_name(path.name + ".pub")
    for file, content, mode in (
        (path, bytes(pair.secret_key), 0o600),
        (public, bytes(pair.public_key), 0o644),
    ):
        try:
            with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
                out.write(content + b"\n")
        except FileExistsError:
            raise InvalidConfig(f"{file} exists: a key is never overwritten") from None
        except OSError as error:
            raise InvalidConfig(f"{file} cannot be written: {error.strerror}") from None
    return line


def read_key(path: Path) -> "SecretKey":
    """A secret key, decrypted; the password is asked for on the terminal.

    Raises:
        InvalidConfig: it cannot be read, is none, others may read it, or the password is wrong.
    """
    from minisign import Error, SecretKey

    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            content = file.read(4096)
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise InvalidConfig(f"{path} can be read by others (mode {mode:04o}): chmod 600 {path}")
    try:
        key = SecretKey.from_bytes(content)
        if key.is_encrypted():
            key.decrypt(getpass.getpass(f"Password of {path}: "))
        return key
    except (Error, ValueError) as error:
        raise InvalidConfig(f"{path} cannot be used: {error}") from None
