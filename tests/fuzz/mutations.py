"""Mutations of files and of command lines, each determined by its random generator."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

DEEP = "[" * 100_000 + "]" * 100_000
LONG_NUMBER = "9" * 6_000
# Texts of JSON values, some of which no JSON writer would produce.
VALUES = (
    *("null", "true", "false", "-1", "0", "1", "2.5", "1e999", "-1e999", "NaN", "1e-320"),
    *(
        "1000000000000",
        "9" * 25,
        "9" * 400,
        LONG_NUMBER,
        DEEP,
        "[" * 400 + "]" * 400,
        DEEP[:50_000],
    ),
    *('""', '" "', '"x"', '"7"', '"\\ud800"', '"\\u0000"', '"a\\tb\\nc"', '"../../x"', '"/"'),
    *(f'"{"a" * 300}"', "[]", "{}", "[[]]", "[null]", "[1, 2]", '["a"]', '{"a": {"b": 1}}'),
)
# What files, sizes and separators are made of.
PIECES = (
    *(b"\0", b"\0" * 8, b"\xff", b"\xff" * 4, b"\xff" * 8, b"\xef\xbb\xbf", b"\xff\xfe", b"\x80"),
    *((1 << 31).to_bytes(8, "little"), (1 << 42).to_bytes(8, "little"), b"\r", b"\n", b"\r\n"),
    *(b'"', b"'", b"\\", b"\t", b",", b":", b"{", b"}", b"[[[[", b"PK\x03\x04", b"\x1f\x8b"),
    *("\u2028".encode(), "é".encode(), b"-", b"9" * 30, b"a" * 200_000, b" " * 5_000),
)
_MARK = "the place of another value"


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """Change a file one to three times."""
    changes = (_flip, _truncate, _insert, _overwrite, _delete, _repeat, _swap)
    for _ in range(random.randint(1, 3)):
        content = random.choice(changes)(content, random)
    return content


def mutate_json(content: bytes, random: Random) -> bytes:
    """Change a value, a key or a line of JSON, of one object or of one object per line."""
    lines = content.decode().split("\n")
    whole = not all(line.startswith("{") for line in lines if line)
    number = random.choice([n for n, line in enumerate(lines) if line])
    record = json.loads(content if whole else lines[number])
    holder, key = random.choice(list(_places(record)))
    change = random.randrange(6)
    if change == 0 and isinstance(holder, dict):
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[random.choice(["", "x", "\ud800", "a" * 300, key + " "])] = holder.pop(key)
    elif change == 2 and isinstance(holder, list):
        holder.insert(random.randrange(len(holder) + 1), holder[key])
    elif change == 3:
        others = list(_places(record))
        other, place = random.choice(others)
        holder[key] = json.loads(json.dumps(other[place]))
    else:
        holder[key] = _MARK
    text = json.dumps(record).replace(f'"{_MARK}"', random.choice(VALUES))
    if whole:
        return text.encode()
    return "\n".join([*lines[:number], text, *lines[number + 1 :]]).encode()


def mutate_place(path: Path, random: Random) -> None:
    """Put something else in the place of a file."""
    path.unlink()
    change = random.randrange(5)
    if change == 0:
        path.mkdir()
    elif change == 1:
        path.symlink_to(path)
    elif change == 2:
        path.symlink_to(path.with_name("nowhere"))
    elif change == 3:
        path.touch()


def remove(path: Path) -> None:
    """Remove whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def mutate_arguments(arguments: Sequence[str], random: Random) -> list[str]:
    """Change, drop, repeat or add arguments of a command line."""
    arguments = list(arguments)
    for _ in range(random.randint(1, 2)):
        position = random.randrange(len(arguments))
        name, _, value = arguments[position].partition("=")
        change = random.randrange(10)
        if change == 0 and len(arguments) > 1:
            del arguments[position]
        elif change == 1:
            random.shuffle(arguments)
        elif change == 2:
            arguments.insert(position, arguments[position])
        elif change <= 4:
            arguments.insert(position, random.choice(_ARGUMENTS))
        elif change == 5:
            arguments[position] = name
        elif change == 6:
            arguments[position] = f"{_change_text(name, random)}={value}"
        elif change == 7:
            arguments[position] = f"{name}={_change_text(value, random)}"
        else:
            arguments[position] = f"{name}={random.choice(_TEXTS)}"
    return arguments


_TEXTS = (
    *("", " ", "none", "None", "null", "true", "-1", "0", "1", "1.5", "1e999", "nan", "inf", "x"),
    *("1000000000000", "9" * 25, "9" * 400, LONG_NUMBER, "1,2", ",", "[", "(1, 2)", "{'a': 1}"),
    *(
        "a" * 300,
        "a/" * 3_000,
        "/",
        "/dev/null",
        "/dev/null/x",
        ".",
        "~",
        "\ud800",
        "é",
        "\n",
        "%s",
    ),
    *("--", "=", "a=b", "*", "[", "gs://", "s3://b/c", "://", "file.py:argument", "../..", "$(x)"),
)
_ARGUMENTS = (
    *("--", "-", "---", "", " ", "word", "--=", "-x", "--x", "--nox", "--config", "--config="),
    *("--config.", "--config.model", "--config.model=1", "--config.x.y=1", "--noconfig", "--help"),
    *(
        "--flagfile=",
        "--flagfile=/",
        "--flagfile=/nowhere",
        "--flagfile",
        "--undefok=x",
        "--version",
    ),
    *("--list_config", "--list_config=x", "--list_config=model", "--verbosity=9", "--helpfull"),
    *("--config.seed=none", "--config.seed=-1", "--config.model.num_hidden_layers=1000000000000"),
    *("--config.data.masking=", "--config.run.init_from=", "--config.optimizer.learning_rate=nan"),
    *("--noworkdir", "--workdir", "--logtostderr=3", "--pdb=x", "--only_check_args=x", "--v=x"),
)


def _change_text(text: str, random: Random) -> str:
    changed = mutate_bytes(text.encode("utf-8", "replace") or b"x", random)
    # An argument holds no zero bytes, and is decoded like this.
    return changed.replace(b"\0", b"")[:5_000].decode("utf-8", "surrogateescape")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the container and the key of each value inside a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _slice(content: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(content) + 1)
    return start, min(len(content), start + random.choice([1, 2, 4, 8, 30, 1000]))


def _flip(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 8]) if content else 0):
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, random: Random) -> bytes:
    return content[: random.randrange(len(content) + 1)]


def _insert(content: bytes, random: Random) -> bytes:
    start = random.choice([0, len(content), random.randrange(len(content) + 1)])
    return content[:start] + random.choice([*PIECES, random.randbytes(9)]) + content[start:]


def _overwrite(content: bytes, random: Random) -> bytes:
    start, _ = _slice(content, random)
    piece = random.choice([*PIECES, random.randbytes(4)])
    return content[:start] + piece + content[start + len(piece) :]


def _delete(content: bytes, random: Random) -> bytes:
    start, end = _slice(content, random)
    return content[:start] + content[end:]


def _repeat(content: bytes, random: Random) -> bytes:
    start, end = _slice(content, random)
    return content[:end] + content[start:]


def _swap(content: bytes, random: Random) -> bytes:
    start, end = sorted((random.randrange(len(content) + 1), random.randrange(len(content) + 1)))
    middle = (start + end) // 2
    return content[:start] + content[middle:end] + content[start:middle] + content[end:]
