"""Files and directories are complete or absent."""

from pathlib import Path

import pytest

from albert_jax.durable_files import new_directory, new_file, write_atomically


class Interrupted(BaseException):
    pass


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    with pytest.raises(Interrupted), new_file(path) as partial:
        partial.write_text("new, in part")
        assert path.read_text() == "old"
        raise Interrupted
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"report.json": "old"}
    write_atomically(path, "new: ä\n")
    assert path.read_bytes() == "new: ä\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "parent/model"
    with pytest.raises(Interrupted), new_directory(path) as partial:
        (partial / "half").write_text("")
        raise Interrupted
    assert not list(path.parent.iterdir())
    path.mkdir()  # an empty one may be there
    with new_directory(path) as partial:
        (partial / "nested").mkdir()
        (partial / "nested/file").write_text("text")
        assert not list(path.iterdir())
    assert (path / "nested/file").read_text() == "text"
    assert list(path.parent.iterdir()) == [path]


def test_a_name_that_is_taken_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("old")
    for name, error in (("file", FileExistsError), ("full", ValueError)):
        message = f"{name} exists already; choose another directory"
        taken = new_directory(tmp_path / name, error=error)
        with pytest.raises(error, match=message), taken:
            pytest.fail("entered")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
