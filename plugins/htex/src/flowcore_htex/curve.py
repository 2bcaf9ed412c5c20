"""Keys: made for each run, kept in a private folder, read by whoever belongs to the run."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

_PRIME: Final = 2**255 - 19
_A24: Final = 121665
_Z85: Final = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


class Keys(NamedTuple):
    """The two pairs of keys of a run, in ZeroMQ's printable form (Z85)."""

    server_public: bytes
    server_secret: bytes
    client_public: bytes
    client_secret: bytes

    @property
    def client_public_bytes(self) -> bytes:
        """The client's public key as 32 bytes."""
        return z85_decode(self.client_public)


def prepare_folder(folder: Path) -> Path:
    """Make the folder with mode 0700, or check that nobody else can look into the one that is there.

    Raises:
        PermissionError: others may enter it, or it is somebody else's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if state.st_uid != os.getuid():
        raise PermissionError(
            f"{folder} belongs to user {state.st_uid}, and is to hold secret keys of user {os.getuid()}\n"
            "  name a folder of your own: HighThroughputExecutor(cert_dir=...)"
        )
    if stat.S_IMODE(state.st_mode) & 0o077:
        raise PermissionError(
            f"{folder} can be read by others (mode {stat.S_IMODE(state.st_mode):04o}), and is to hold secret keys\n"
            f"  make it private: chmod 700 {folder}"
        )
    return folder


def write_keys(folder: Path) -> Keys:
    """Make the keys of a run, and write them to the folder, readable by its owner only."""
    server_secret, client_secret = os.urandom(32), os.urandom(32)
    keys = Keys(
        z85_encode(public_key(server_secret)),
        z85_encode(server_secret),
        z85_encode(public_key(client_secret)),
        z85_encode(client_secret),
    )
    for name, key in zip(Keys._fields, keys, strict=True):
        partial = folder / f".{name}.{os.getpid()}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(key)
        partial.rename(folder / name)
    return keys


def read_keys(folder: str) -> Keys:
    """Read the keys of the run.

    Raises:
        OSError: they are not there, or not ours to read.
        ValueError: they are damaged.
    """
    keys = Keys(*[Path(folder, name).read_bytes().strip() for name in Keys._fields])
    if any(len(key) != 40 for key in keys):
        raise ValueError(f"a key in {folder} is damaged")
    return keys


def public_key(secret: bytes) -> bytes:
    """Return the public key of a secret key: X25519 with the base point (RFC 7748), as `zmq.curve_public` does.

    Done here because the user's process makes the keys, and does not load ZeroMQ for anything else.
    """
    scalar = bytearray(secret)
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    number = int.from_bytes(scalar, "little")
    x2, z2, x3, z3 = 1, 0, 9, 1
    swapped = 0
    for place in range(254, -1, -1):
        bit = number >> place & 1
        if swapped ^ bit:
            x2, z2, x3, z3 = x3, z3, x2, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % _PRIME, b * b % _PRIME, d * a % _PRIME, c * b % _PRIME
        x3, z3 = (da + cb) ** 2 % _PRIME, 9 * (da - cb) ** 2 % _PRIME
        e = aa - bb
        x2, z2 = aa * bb % _PRIME, e * (aa + _A24 * e) % _PRIME
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, _PRIME - 2, _PRIME) % _PRIME).to_bytes(32, "little")


def z85_encode(data: bytes) -> bytes:
    """Return bytes in ZeroMQ's printable form (RFC 32); their number is a multiple of four."""
    text = bytearray()
    for start in range(0, len(data), 4):
        number = int.from_bytes(data[start : start + 4], "big")
        text += bytes(_Z85[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return bytes(text)


def z85_decode(text: bytes) -> bytes:
    """Return the bytes that `z85_encode` encoded."""
    data = bytearray()
    for start in range(0, len(text), 5):
        number = 0
        for char in text[start : start + 5]:
            number = number * 85 + _Z85.index(char)
        data += number.to_bytes(4, "big")
    return bytes(data)
