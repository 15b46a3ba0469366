"""A compiled program is found in the cache; if its entry is damaged, it is compiled again."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from albert_jax.devices.compile_cache import (
    CacheCounts,
    SealedCache,
    cache_counts,
    use_compile_cache,
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    before = jax.config.jax_compilation_cache_dir
    use_compile_cache(str(tmp_path / "cache"))
    yield tmp_path / "cache"
    use_compile_cache(before)


def compute() -> CacheCounts:
    """Compute as a process that has just started; return what it needed and what it found."""
    jax.clear_caches()
    before = cache_counts()
    ones = np.ones((4, 3), np.float32)
    assert float(jax.jit(lambda x: (x @ x.T).sum())(ones)) == 48
    return cache_counts().since(before)


def test_a_second_start_compiles_nothing(directory: Path) -> None:
    assert compute() == (1, 0)
    (entry,) = directory.iterdir()
    written = entry.stat().st_mtime_ns
    assert compute() == (1, 1) and compute().all_found
    assert not CacheCounts(0, 0).all_found and not CacheCounts(2, 1).all_found
    assert entry.stat().st_mtime_ns > written  # the last use decides what is removed


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],  # as a killed writer leaves it
        lambda content: content[:-100] + bytes(100),
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
        lambda content: b"",
    ],
)
def test_a_damaged_entry_is_compiled_again(
    directory: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    compute()
    (entry,) = directory.iterdir()
    intact = entry.read_bytes()
    entry.write_bytes(damage(intact))  # type: ignore[operator]
    assert compute() == (1, 0)
    assert f"{entry} is damaged" in caplog.text
    assert len(entry.read_bytes()) > 100
    assert compute() == (1, 1)


def test_a_local_directory_stays_within_its_bound(tmp_path: Path) -> None:
    for name, age in (("old", 300), ("used", 200), (".killed.program.host.7", 400)):
        file = tmp_path / (name if "program" in name else f"{name}.program")
        file.write_bytes(bytes(400))
        os.utime(file, (time.time() - age,) * 2)
    (tmp_path / "of another program").write_bytes(bytes(4000))
    cache = SealedCache(str(tmp_path), most_bytes=1000)
    cache.put("new", b"1" * 300)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("used.program", "new.program", "of another program")
    }
    assert cache.get("new") == b"1" * 300 and cache.get("none") is None
