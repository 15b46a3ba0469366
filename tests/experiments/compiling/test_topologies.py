"""Names of machines, and what is said where they are wrong or their compiler is missing."""

import importlib.util

import pytest

from data_pipeline.errors import InputError
from experiments.compiling.topologies import Topology, devices_of, parse_topologies


def test_each_topology_has_each_number_of_slices() -> None:
    found = parse_topologies(["v5e:8x8", "h200:4"], ["1", "2"])
    assert found == [
        Topology("v5e:8x8", 1, "tpu", 64),
        Topology("v5e:8x8", 2, "tpu", 64),
        Topology("h200:4", 1, "gpu", 4),
        Topology("h200:4", 2, "gpu", 4),
    ]
    assert [str(one) for one in found[:2]] == ["v5e:8x8", "2 x v5e:8x8"]
    assert parse_topologies(["v5p:2x2x4", "v4:2x2x1", "cpu:3"], ["1"])[2].devices_per_slice == 3


@pytest.mark.parametrize(
    ("name", "slices", "words"),
    [
        ("v5e", "1", r"--topology must be v4:AxBxC, .*, got 'v5e'"),
        ("v9:2x2", "1", "got 'v9:2x2'"),
        ("v5e:4x4x4", "1", "must be v5e:AxB with at most 256 chips, those of a pod, got 'v5e:4x4x"),
        ("v5e:32x32", "1", "at most 256 chips"),
        ("v4:0x2x2", "1", "must be v4:AxBxC"),
        ("h200:9", "1", r"GPUs of a host, up to 8\)"),
        ("cpu:2", "2", "--num_slices must be 1 for cpu:2, got 2"),
        ("v5e:8x8", "0", r"--num_slices must be whole numbers in \[1, 4096\].* got '0'"),
        ("v5e:8x8", "two", "got 'two'"),
    ],
)
def test_what_cannot_be_is_named_with_what_can(name: str, slices: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_topologies([name], [slices])


def test_a_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    line = r"^the compiler for TPUs is not installed: `make compiler-tpu`, or `pip install --no-dep"
    with pytest.raises(InputError, match=line) as raised:
        devices_of(Topology("v5e:8x8", 1, "tpu", 64))
    assert "libtpu==" in str(raised.value)
