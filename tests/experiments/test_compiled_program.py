"""Kernels of a compiled program, parsed from its text."""

import pytest
from compiled_program import (
    Kernel,
    KernelKind,
    bytes_between_matmuls,
    parse_kernels,
    passes_table,
)

PROGRAM = """HloModule step, is_scheduled=true

%fused (p: bf16[8,4]) -> f32[4] {
  %p = bf16[8,4]{1,0} parameter(0)
  ROOT %sum = f32[4]{0} fusion(%p), kind=kLoop, calls=%inner
}

ENTRY %main (x: bf16[8,2], w: bf16[2,4], b: bf16[4]) -> (bf16[8,4], f32[4]) {
  %x = bf16[8,2]{1,0} parameter(0)
  %w = bf16[2,4]{1,0} parameter(1)
  %b = bf16[4]{0} parameter(2)
  %matmul.3 = (bf16[8,4]{1,0}, s8[16]{0}) custom-call(%x, %w, /*index=2*/%b), \
custom_call_target="__cublas$lt$matmul", backend_config={"epilogue":"BIAS"}
  %gte.1 = bf16[8,4]{1,0} get-tuple-element(%matmul.3), index=0
  %input_reduce_fusion.2 = f32[4]{0} fusion(%gte.1), kind=kInput, calls=%fused, \
metadata={op_name="jit(step)/transpose(jvp())/query/reduce_sum" stack_frame_id=7}
  %kernel.1 = (bf16[8,4]{1,0}, pred[]) custom-call(%gte.1), \
custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(step)/norm/pallas_call"}
  %norm = bf16[8,4]{1,0} get-tuple-element(%kernel.1), index=0
  %input_scatter_fusion = bf16[8,4]{1,0} fusion(%norm, %b), kind=kInput, calls=%fused
  ROOT %tuple = (bf16[8,4]{1,0}, f32[4]{0}) tuple(%norm, %input_reduce_fusion.2)
}
"""


def test_kernels_are_parsed_with_what_they_read_and_write() -> None:
    kernels = parse_kernels(PROGRAM)
    assert kernels == [
        Kernel(KernelKind.MATMUL, "BIAS", 32 + 16 + 8, 64 + 16, ""),
        Kernel(KernelKind.PASS, "input_reduce_fusion", 64, 16, "query/reduce_sum"),
        Kernel(KernelKind.TRITON, "kernel", 64, 65, "norm/pallas_call"),
        Kernel(KernelKind.SCATTER, "input_scatter_fusion", 72, 64, ""),
    ]
    assert bytes_between_matmuls(kernels) == 64 + 16 + 64 + 65
    megabytes = [k._replace(read=k.read * 10**6, written=k.written * 10**6) for k in kernels]
    assert passes_table(megabytes).splitlines()[2:] == [
        "| 1 | 72.0 | 64.0 | scatter |  |",
        "| 1 | 64.0 | 65.0 | triton | norm/pallas_call |",
        "| 1 | 64.0 | 16.0 | pass | query/reduce_sum |",
    ]


def test_a_loop_hides_its_kernels_and_is_refused() -> None:
    loop = "  %while.1 = (s32[], bf16[8,4]{1,0}) while(%norm), condition=%c, body=%b\n  ROOT %tuple"
    with pytest.raises(ValueError, match=r"while\.1 .*compile all layers as one"):
        parse_kernels(PROGRAM.replace("  ROOT %tuple", loop))
