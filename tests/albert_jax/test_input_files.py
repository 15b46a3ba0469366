"""Whole files and JSON: what may lie in their place, and what JSON may hold."""

import os
from pathlib import Path

import pytest

from albert_jax.input_files import parse_json, read_json_object, read_text, require_fields


class FileError(Exception):
    pass


def test_whatever_lies_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"one\ncaf\xe9\n")
    for name, message in {
        "directory": "is a directory, expected a file",
        "loop": "cannot be read: Too many levels of symbolic links",
        "pipe": "is not a regular file",
        "latin": "is not UTF-8: line 2, byte 0xe9",
        "nowhere": "does not exist",
        "a" * 300: "cannot be read: File name too long",
    }.items():
        with pytest.raises(FileError) as caught:
            read_text(tmp_path / name, error=FileError)
        assert str(caught.value) == f"{tmp_path / name} {message}"
    with pytest.raises(FileError, match=r"^--input=pipe is not a regular file"):
        read_text(tmp_path / "pipe", error=FileError, name="--input=pipe")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,}', "this is not JSON: .* line 1 column [89]"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested more than 100 deep"),
        ('{"a": ' + "[" * 101 + "]" * 101 + "}", "nested more than 100 deep"),
        ('{"a": ' + "9" * 6_000 + "}", "a number of too many digits"),
        ('{"a": ["\\ud800"]}', r"'\\ud800' is not Unicode text"),
        ("[1]", r"must be a JSON object, got \[1\]"),
    ],
)
def test_json_that_cannot_be_used_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        read_json_object(tmp_path / "a.json", error=FileError)
    assert str(caught.value).startswith(str(tmp_path / "a.json"))
    assert "\n" not in str(caught.value)


def test_json_may_have_a_byte_order_mark_and_moderate_depth(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('\ufeff{"a": ' + "[" * 90 + "]" * 90 + ', "b": null}')
    content = read_json_object(tmp_path / "a.json", error=FileError)
    assert content.keys() == {"a", "b"}
    assert read_json_object(tmp_path / "a.json", error=FileError, drop_nulls=True).keys() == {"a"}


def test_nulls_are_dropped_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": {"b": null, "c": [{"d": null}, null]}}')
    content = read_json_object(tmp_path / "a.json", error=FileError, drop_nulls=True)
    assert content == {"a": {"c": [{}, None]}}


def test_the_line_of_a_record_is_named() -> None:
    with pytest.raises(FileError, match=r"^a\.jsonl:7: this is not JSON"):
        parse_json("{", "a.jsonl", error=FileError, line=7)
    with pytest.raises(FileError, match=r"^a\.json:4: this is not JSON"):
        parse_json('{\n"a":\n1 2', "a.json", error=FileError, line=2)
    with pytest.raises(FileError, match=r"^a\.jsonl:7: this JSON is nested"):
        parse_json("[" * 5_000 + "]" * 5_000, "a.jsonl", error=FileError, line=7)


def test_fields_have_their_types() -> None:
    kinds = {"rows": int, "name": str, "share": float, "is_whole": bool, "files": dict}
    fields = {"rows": 3, "name": "a", "share": 1, "is_whole": True, "files": {}, "more": None}
    require_fields(fields, kinds, "a.json", error=FileError)
    for name, value, message in (
        ("rows", True, "a.json: rows must be a whole number, got True"),
        ("rows", -1, "a.json: rows must be a whole number, got -1"),
        ("rows", 1 << 63, f"a.json: rows must be a whole number, got {1 << 63}"),
        ("rows", 1.0, "a.json: rows must be a whole number, got 1.0"),
        ("share", "1", "a.json: share must be a number, got '1'"),
        ("share", 10**400, f"a.json: share must be a number, got 1{'0' * 58}…"),
        ("share", True, "a.json: share must be a number, got True"),
        ("is_whole", 1, "a.json: is_whole must be true or false, got 1"),
        ("name", "a" * 500, None),
        ("name", ["a" * 500], f"a.json: name must be a text, got ['{'a' * 57}…"),
    ):
        changed = fields | {name: value}
        if message is None:
            require_fields(changed, kinds, "a.json", error=FileError)
            continue
        with pytest.raises(FileError) as caught:
            require_fields(changed, kinds, "a.json", error=FileError)
        assert str(caught.value) == message
    with pytest.raises(FileError, match=r"a\.json: files is missing"):
        require_fields({"rows": 3}, {"files": dict}, "a.json", error=FileError)
    with pytest.raises(FileError, match=r"a\.json must be an object, got \[\]"):
        require_fields([], {"files": dict}, "a.json", error=FileError)
