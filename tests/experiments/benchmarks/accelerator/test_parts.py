"""The parts of a step: kernels, idle time and bounds."""

import numpy as np
import pytest

from experiments.benchmarks.accelerator.kernels import Launch, _idle
from experiments.benchmarks.accelerator.parts import (
    Kernel,
    Part,
    Work,
    part_of,
    sum_by_part,
    work_of_parts,
)
from experiments.benchmarks.accelerator.recordings import (
    take_rows,
)

STEP = "jit(train_step)/"
FORWARD = f"{STEP}jvp(AlbertForPreTraining)/albert/encoder/eval_jaxpr/"
BACKWARD = f"{STEP}transpose(jvp(AlbertForPreTraining))/albert/encoder/closed_call/"
NVJET = "nvjet_sm90_tst_128x160_64x5_2x1_v_bz_NNT"
KERNELS = [
    ("custom-call.59", NVJET, f"{FORWARD}FeedForward/intermediate/dot_general", Part.MATMULS),
    ("custom-call.60", NVJET, f"{BACKWARD}SelfAttention/dot_general", Part.MATMULS),  # fused
    ("custom-call.61", "Memset 3", f"{BACKWARD}SelfAttention/key/dot_general", Part.MATMULS),
    (
        "dot_product_attention_bwd.128",
        "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x64",
        f"{BACKWARD}SelfAttention/dot_product_attention_bwd",
        Part.ATTENTION,
    ),
    (
        "dot_product_attention_bwd.96",
        "Memset 3",
        f"{BACKWARD}SelfAttention/dot_product_attention_bwd",
        Part.ATTENTION,
    ),
    ("dot.4", "dot.4", f"{FORWARD}SelfAttention/bqhd,bkhd->bhqk/dot_general", Part.ATTENTION),
    ("fusion.1", "fusion_1588", f"{BACKWARD}SelfAttention/layer_norm/mul", Part.LAYER_NORM),
    ("custom-call", "add_and_norm_backward", f"{BACKWARD}FeedForward/x", Part.LAYER_NORM),
    ("loop_multiply_fusion.3", "loop_multiply_fusion_11", f"{FORWARD}FeedForward/mul", Part.GELU),
    ("custom-call.7", "gelu_backward", f"{BACKWARD}FeedForward/gelu_backward", Part.GELU),
    (
        "input_convert_reduce_fusion.6",
        "input_convert_reduce_fusion_11",
        f"{BACKWARD}FeedForward/intermediate/reduce_sum",
        Part.BIASES,
    ),
    ("loop_add_fusion", "loop_add_fusion_47", f"{FORWARD}SelfAttention/query/add", Part.BIASES),
    ("loop_add_fusion.2", "loop_add_fusion_9", f"{BACKWARD}FeedForward/add_any", Part.BIASES),
    (
        "custom-call.3",
        "sm90_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x128x32",
        f"{STEP}transpose(jvp(AlbertForPreTraining))/AlbertForPreTraining.predict_pieces/"
        "predictions/bce,ve->bcv/dot_general",
        Part.HEAD,
    ),
    (
        "loop_multiply_fusion.12",
        "loop_multiply_fusion_12",
        f"{STEP}transpose(jvp())/mul",
        Part.HEAD,
    ),
    ("input_reduce_fusion", "input_add_reduce_fusion_5", f"{STEP}reduce_sum", Part.OPTIMIZER),
    ("loop_select_fusion", "loop_select_fusion_9", f"{STEP}jit(_where)/select_n", Part.OPTIMIZER),
    (
        "wrapped_convert",
        "wrapped_convert_4",
        f"{STEP}FeedForward/intermediate.parameters/convert_element_type",
        Part.REST,
    ),
    ("copy.1", "MemcpyD2D", "", Part.REST),
]

HEADS_READ = ("masked_lm_ids", "sentence_order_labels")


def test_kernels_belong_to_parts_of_the_model():
    kernels = [(Kernel(*names, 1.0), part) for *names, part in KERNELS]
    assert [part_of(kernel) for kernel, _ in kernels] == [part for _, part in kernels]
    sums = sum_by_part(kernel for kernel, _ in kernels)
    assert list(sums) == list(Part)
    assert (sums[Part.MATMULS], sum(sums.values())) == (3, len(KERNELS))


def test_idle_time_is_what_no_stream_fills():
    launches = [Launch("a", "a", *times) for times in ((5e6, 6e6), (0, 3e6), (1e6, 2e6))]
    assert _idle(launches) == pytest.approx(2 / 3)  # three steps are traced


def test_the_bound_of_a_part_is_that_of_its_work(recordings):
    config, _, directory = recordings
    config, batches = take_rows(directory / "packed_32.npz", config, 4)
    assert {len(batch["input_ids"]) for batch in batches.batches} == {4}
    work = work_of_parts(config.model, batches, 2)
    positions, layers = 4 * 32, 2
    every = positions * (layers * (8 * 32**2 + 4 * 32 * 64) + 2 * 16 * 32)
    chosen = sum(batches.batches[0][name].shape[1] for name in HEADS_READ)
    skipped = 4 * (32 - chosen) * (2 * 32**2 + 4 * 32 * 64)
    assert work[Part.MATMULS].flops == 3 * (every - skipped) < 3 * every
    ids = batches.batches[0]["sequence_ids"]
    lengths = [np.count_nonzero(row == one) for row in ids for one in set(row[row > 0])]
    assert work[Part.ATTENTION].flops == 3 * layers * 4 * 32 * sum(n * n for n in lengths)
    assert Work(6.0, 4.0).bound(2.0, 1.0) == (4.0, "memory")
    assert Work(6.0).bound(2.0, None) == (3.0, "operations")
    assert Work().bound(2.0, 1.0) is None
