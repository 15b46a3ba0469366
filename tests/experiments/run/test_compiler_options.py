"""XLA's options of a run: defaults of the platform, the run's own, and those it rejects."""

import pytest

from albert_jax.matmuls import Matmuls
from data_pipeline.errors import InputError
from experiments.run import compiler_options
from experiments.run.config import TrainingRunConfig
from experiments.run.execution import open_mesh


def test_compiler_options_are_those_of_the_platform_and_the_run_s_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, more = "xla_gpu_enable_triton_gemm", "xla_gpu_autotune_level"
    assert compiler_options.compiler_options(TrainingRunConfig()) == {}  # on a CPU
    options = {known: False, "xla_of_another_version": True}
    monkeypatch.setitem(compiler_options.COMPILER_OPTIONS, "cpu", options)
    monkeypatch.setitem(compiler_options.FLOAT8_OPTIONS, "cpu", {more: 1})
    float8 = TrainingRunConfig(matmuls=Matmuls.FLOAT8)
    assert compiler_options.compiler_options(float8) == {known: False, more: 1}
    for text, expected in {
        "": {known: False},
        "none": {},
        f"{more}=2": {known: False, more: "2"},
        f"{known}=true, {more}=0": {known: True, more: "0"},
    }.items():
        assert (
            compiler_options.compiler_options(TrainingRunConfig(compiler_options=text)) == expected
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xla_no_such_option=1", "No such compile option: 'xla_no_such_option'"),
        ("xla_gpu_autotune_level=high", "'high' is not a valid int32 value"),
        ("xla_gpu_autotune_level", "name=value"),
        ("xla_gpu_autotune_level=", "name=value"),
    ],
)
def test_compiler_options_that_cannot_be_are_rejected_before_the_run(
    text: str, message: str
) -> None:
    run = TrainingRunConfig(compiler_options=text)
    with pytest.raises(InputError, match=r"^--config\.run\.compiler_options must be ") as raised:
        open_mesh(run, 8)
    assert message in str(raised.value)
    assert repr(text) in str(raised.value)
