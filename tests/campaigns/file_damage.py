"""Damage to the bytes of a file, as disks, copies and editors do it."""

import random
from collections.abc import Callable
from pathlib import Path


def flip(path: Path, choose: random.Random) -> None:
    """Flip a bit."""
    content = bytearray(path.read_bytes())
    if content:
        content[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, choose: random.Random) -> None:
    """Cut the file anywhere."""
    content = path.read_bytes()
    path.write_bytes(content[: choose.randrange(len(content) + 1)])


def zero(path: Path, choose: random.Random) -> None:
    """Replace every byte by zero, as after a power cut."""
    del choose
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path, choose: random.Random) -> None:
    """Leave nothing of it."""
    del choose
    path.write_bytes(b"")


def lengthen(path: Path, choose: random.Random) -> None:
    """Append a few bytes."""
    with path.open("ab") as file:
        file.write(choose.randbytes(choose.randint(1, 99)))


def delete(path: Path, choose: random.Random) -> None:
    """Remove it."""
    del choose
    path.unlink()


FileDamage = Callable[[Path, random.Random], None]
FILE_DAMAGES: tuple[FileDamage, ...] = (flip, flip, truncate, zero, empty, lengthen, delete)
