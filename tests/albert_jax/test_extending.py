"""The recipes of docs/extending.md: an attention and a position encoding, added from outside."""

import dataclasses
from enum import StrEnum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from random_inputs import random_batch
from tiny_models import TINY, random_params

from albert_jax import AlbertForPreTraining
from albert_jax.attention.dispatch import Attention, choose_attention
from albert_jax.attention.implementation import (
    AttentionFn,
    AttentionImplementation,
    AttentionWorkload,
)
from albert_jax.attention.mask import AttentionMask
from albert_jax.config import PositionEncoding
from albert_jax.devices.flops import training_flops_per_row
from albert_jax.encoder import Execution
from albert_jax.layers import AnyArray, initializer
from albert_jax.positions import ENCODERS, PositionBias, PositionEncoder
from albert_jax.tasks.pretraining import pretraining_objective

BATCH: Any = random_batch(TINY, [[6], [2, 3]], 6, np.random.default_rng(0))
CPU = AttentionWorkload(TINY, jnp.float32, (6,), True, jax.devices()[0])


def add_member(monkeypatch: pytest.MonkeyPatch, choices: type[StrEnum], value: str) -> Any:
    """Do what a line in the enum's body does, until the test ends."""
    member = str.__new__(choices, value)
    member._name_, member._value_ = value.upper(), value
    monkeypatch.setitem(choices._member_map_, member._name_, member)
    monkeypatch.setitem(choices._value2member_map_, value, member)
    monkeypatch.setattr(choices, "_member_names_", [*choices._member_names_, member._name_])
    return member


def gradient_norms(model: AlbertForPreTraining, params: Any) -> dict[str, float]:
    """Norms of the gradients of a step, by the names of parameters."""
    loss_fn = pretraining_objective(model).loss_fn

    def total(params: Any) -> Any:
        metrics = loss_fn(params, jax.tree.map(jnp.asarray, BATCH), None)
        return metrics["masked_lm_loss"].sum + metrics["sentence_order_loss"].sum

    gradients = jax.jit(jax.grad(total))(params)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(jnp.linalg.norm(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    }


class TestAttention:
    """Attention to all keys of the row with equal weights, found to differ from the reference."""

    @pytest.fixture(autouse=True)
    @classmethod
    def registered(cls) -> Any:
        def bind(mask: AttentionMask) -> AttentionFn:
            def attend(query: Array, key: Array, value: Array) -> Array:
                ids = mask.segment_ids(*query.shape[:2])
                weights = (ids[:, :, None] == ids[:, None, :]).astype(value.dtype)
                weights /= weights.sum(-1, keepdims=True)
                return jnp.einsum("bqk,bkhd->bqhd", weights, value) + 0 * (query + key)

            return attend

        with pytest.MonkeyPatch.context() as patch:
            cls.member = add_member(patch, Attention, "uniform")
            cls.member.implementation = AttentionImplementation(
                bind,
                lambda workload: None if workload.packed else "it is for packed rows",
                platform="cpu",
            )
            yield
        assert "uniform" not in list(Attention)

    def test_it_is_a_choice_and_trains(self) -> None:
        assert Attention("uniform") is self.member
        assert list(Attention)[-1] == "uniform"
        execution = Execution(attention=Attention("uniform"))
        model = AlbertForPreTraining(TINY, execution=execution)
        norms = gradient_norms(model, random_params(model))
        assert norms["albert/encoder/layers/attention/value/kernel"] > 0
        assert norms["albert/encoder/layers/attention/query/kernel"] == 0

    def test_it_is_checked_before_it_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ValueError, match="uniform cannot be used: it is for packed rows"):
            choose_attention(self.member, CPU._replace(packed=False))
        with pytest.raises(ValueError, match=r"uniform cannot be used: it is .* off the reference"):
            choose_attention(self.member, CPU)
        monkeypatch.setattr(Attention.BLOCKED, "implementation", None)
        picked, line = choose_attention(Attention.AUTO, CPU)
        assert picked is Attention.XLA
        assert "not uniform: it is" in line


class TestPositionEncoding:
    """Sinusoids without parameters, added to the embeddings, and a learned slope by distance."""

    @pytest.fixture(autouse=True)
    @classmethod
    def registered(cls) -> Any:
        @dataclasses.dataclass(frozen=True)
        class Slope(PositionBias):
            slope: Array

            def scores(self, query: Array) -> Array:
                positions = jnp.arange(query.shape[1])
                distances = -jnp.abs(positions[:, None] - positions)
                return jnp.broadcast_to(
                    self.slope * distances, (1, query.shape[2], *distances.shape)
                )

        class Sinusoids(PositionEncoder):
            def embed(self, embedded: Array, position_ids: AnyArray) -> Array:
                frequencies = jnp.arange(embedded.shape[-1], dtype=embedded.dtype)
                return embedded + jnp.sin(position_ids[..., None] * frequencies)

            def bias(self, encoder: nn.Module, dtype: DTypeLike) -> PositionBias:
                return Slope(encoder.param("slope", initializer(self.config), ()).astype(dtype))

            def flops(self, pairs: int) -> int:
                return 1_000_000

        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(ENCODERS, add_member(patch, PositionEncoding, "sinusoids"), Sinusoids)
            yield
        with pytest.raises(ValueError, match="position_encoding must be one of"):
            dataclasses.replace(TINY, position_encoding="sinusoids")

    def test_it_is_a_choice_and_trains(self) -> None:
        config = dataclasses.replace(TINY, position_encoding="sinusoids")
        model = AlbertForPreTraining(config)
        params = random_params(model)
        assert "position_embeddings" not in params["albert"]["embeddings"]
        assert gradient_norms(model, params)["albert/encoder/slope"] > 0
        ids = np.arange(6, dtype=np.int32)[None]
        score = jax.jit(
            lambda positions: model.apply({"params": params}, ids, position_ids=positions)
        )
        here, there = (score(ids + shift).prediction_logits for shift in (0, 1))
        assert not np.allclose(here, there)

    def test_its_bias_counts_and_is_not_for_every_attention(self) -> None:
        config = dataclasses.replace(TINY, position_encoding="sinusoids")
        without = dataclasses.replace(TINY, position_encoding="none")
        flops = [
            training_flops_per_row(each, length=6, predictions=1) for each in (config, without)
        ]
        assert flops[0] - flops[1] == 3 * TINY.num_hidden_layers * 1_000_000
        picked, line = choose_attention(Attention.AUTO, CPU._replace(config=config))
        assert picked is Attention.XLA
        assert "not blocked: it supports no bias by position" in line
