"""Malformed files of every kind: one line that names the file, status 2, no hang, little memory.

A failure names its case; `-k NAME` repeats the cases of a reader, which are the same in each run.
"""

import traceback
from collections.abc import Iterator
from random import Random

import pytest
from doors import End, Hang, end_of, limited_memory
from mutations import mutate_bytes, mutate_json, mutate_place, remove
from readers import Reader, make_readers

# ml_collections loads a config file in a way that Python wants to drop.
pytestmark = pytest.mark.filterwarnings("ignore")

CASES = 40  # of each reader


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    found = make_readers(tmp_path_factory.mktemp("readers"))
    for name, reader in found.items():
        assert end_of(reader.read) == End(0, ""), f"{name}: the file is whole"
    with limited_memory():
        yield found


def run_case(name: str, reader: Reader, number: int) -> None:
    """Mutate the file, read it, and put it back."""
    random = Random(f"{name} {number}")
    content = reader.file.read_bytes()
    place = number % 15 == 0
    if place:
        mutate_place(reader.file, random)
    else:
        mutate = mutate_json if reader.is_json and random.random() < 0.6 else mutate_bytes
        reader.file.write_bytes(mutate(content, random))
    try:
        status, errors = end_of(reader.read)
    except (Exception, Hang):
        kept = reader.file.with_name(f"case-{number}-{reader.file.name}")
        if not place:
            kept.write_bytes(reader.file.read_bytes())
        pytest.fail(f"{name}, case {number} ({kept}):\n{traceback.format_exc(limit=-6)[-3000:]}")
    finally:
        remove(reader.file)
        reader.file.write_bytes(content)
    shown = f"{name}, case {number}: status {status}, {errors}"
    lines = [line for line in errors.split("\n") if line.startswith("error: ")]
    assert (status, len(lines)) in ((0, 0), (2, 1)), shown
    if status:
        # The file, the directory that lacks it, or the flag that was read from it.
        names = (reader.file.name, str(reader.file.parent), "--")
        assert errors.endswith(f"{lines[0]}\n") and len(lines[0]) < 5_000, shown
        assert any(place in lines[0] for place in names), shown


@pytest.mark.parametrize("cases", [CASES, pytest.param(20 * CASES, marks=pytest.mark.slow)])
def test_no_malformed_file_ends_otherwise_than_with_its_name(
    readers: dict[str, Reader], cases: int
) -> None:
    assert len(readers) * CASES >= 2_000
    for name, reader in readers.items():
        for number in range(cases):
            run_case(name, reader, number)
