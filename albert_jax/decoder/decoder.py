"""The decoder: GPT-2 with cross-attention (Radford et al. 2019; Rothe et al. 2020).

Layers share their halves as the encoder's do: a half is stored once per copy, ``[copies, 1, ...]``,
and the layers run as a scan over depth. With a cache, layers are unrolled instead, since each has
its own cache. Parameters are named like the encoder's; these are GPT-2's names::

    word_embeddings  wte        layers/attention        ln_1, attn
    position_embeddings  wpe    layers/cross_attention  ln_cross_attn, crossattention
    layer_norm       ln_f       layers/feed_forward     ln_2, mlp

A decoder that is tied to the encoder uses the encoder's attention, made causal, and feed-forward
(Rothe et al. §3, SHARE), with its own cross-attention and embeddings. Cross-attention is added
between the two, and normalized before and not after, so that a decoder that starts from a
pre-trained encoder first computes what the encoder does.
"""

import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from albert_jax.config import AlbertConfig
from albert_jax.decoder.attention import read_on, whole_target
from albert_jax.decoder.cache import Arrays, DecoderCache
from albert_jax.decoder.config import Gpt2Config
from albert_jax.decoder.layers import (
    CausalSelfAttention,
    CrossAttention,
    DecoderFeedForward,
)
from albert_jax.encoder import (
    Execution,
    FeedForward,
    Params,
    SelfAttention,
    rematerialize,
    split_by_depth,
)
from albert_jax.layers import AnyArray, LayerNorm, at_least_float32

Memory = Float[Array, "batch source hidden"]  # the encoder's output, at the decoder's width
SourceMask = Bool[Array, "batch source"] | None


class Gpt2Decoder(nn.Module):
    """The embeddings, the layers and the head, whose matrix is the word table.

    Attributes:
        config: the decoder's configuration.
        dtype: type of activations and matmuls; parameters are float32, logits at least that.
        execution: `remat` and `unroll` apply to the scan over layers; the rest applies only to the
            encoder.
        encoder_config: configuration of the encoder whose layers are used, if any.
    """

    config: Gpt2Config
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()
    encoder_config: AlbertConfig | None = None

    def setup(self) -> None:
        config = self.config
        table = functools.partial(
            nn.Embed,
            features=config.n_embd,
            dtype=at_least_float32(self.dtype),
            embedding_init=nn.initializers.normal(config.initializer_range),
        )
        self.word_embeddings = table(config.vocab_size)
        self.position_embeddings = table(config.n_positions)
        self.dropout = nn.Dropout(config.embd_pdrop)
        self.layer_norm = LayerNorm(config.layer_norm_epsilon, self.dtype)
        self.layers = self.param("layers", self._initialize_layers)

    def __call__(
        self,
        decoder_input_ids: Int[AnyArray, "batch length"],
        memory: Memory,
        source_mask: SourceMask = None,
        encoder_layers: Params | None = None,
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length vocabulary"]:
        """Score the next token after each token of a target.

        Args:
            decoder_input_ids: the target, from the start token on.
            memory: the encoder's output.
            source_mask: True for the real tokens of the source; None if all are.
            encoder_layers: the encoder's parameters, if its layers are used.
            deterministic: no dropout.
        """
        halves, length = self._halves(), decoder_input_ids.shape[1]
        hidden = self._embed(decoder_input_ids, jnp.arange(length)[None], deterministic)
        constant, varying = self._by_depth(encoder_layers)
        keys = None
        if not deterministic:
            shape = (self.config.n_layer, len(halves))
            keys = jax.random.split(self.make_rng("dropout"), shape)

        def apply_layer(
            hidden: Array, xs: tuple[Params, Array, Array | None]
        ) -> tuple[Array, None]:
            varying, scale, keys = xs
            layer = constant | varying
            attention = whole_target(length, memory, source_mask, scale)
            for number, (name, half) in enumerate(halves.items()):
                rngs = None if keys is None else {"dropout": keys[number]}
                options: Any = {"deterministic": deterministic, "rngs": rngs}
                output = half.apply({"params": layer[name]}, hidden, attention[name], **options)
                hidden = cast(Array, output)
            return hidden, None

        hidden, _ = jax.lax.scan(
            rematerialize(apply_layer, self.execution.remat),
            hidden,
            (varying, self._scales(), keys),
            length=self.config.n_layer,
            unroll=self.execution.unroll,
        )
        return self._score(hidden)

    def start_cache(
        self, memory: Memory, source_mask: SourceMask = None, *, length: int, beams: int = 1
    ) -> DecoderCache:
        """Return the cache for targets of up to `length` tokens, `beams` rows for each source."""
        config, cross = self.config, self._halves()["cross_attention"]
        of_source = tuple(
            cross.apply({"params": layer["cross_attention"]}, memory, method=CrossAttention.project)
            for layer in self.unstack()
        )
        batch, slots = memory.shape[0], length * beams
        heads, width = config.n_head, config.n_embd // config.n_head
        keys = jnp.zeros((batch, heads, width, slots), self.dtype)
        of_target = tuple((keys, keys.swapaxes(2, 3)) for _ in range(config.n_layer))
        writers = jnp.broadcast_to(jnp.arange(beams)[:, None], (batch, beams, length))
        return DecoderCache(
            jnp.zeros((), jnp.int32), writers, of_target, cast(Arrays, of_source), source_mask
        )

    def unstack(self, encoder_layers: Params | None = None) -> tuple[Params, ...]:
        """Return the halves of each layer, sliced from their stacks once for many steps."""
        constant, varying = self._by_depth(encoder_layers)
        return tuple(
            constant | jax.tree.map(lambda x, i=number: x[i], varying)
            for number in range(self.config.n_layer)
        )

    def extend(
        self,
        decoder_input_ids: Int[AnyArray, "rows length"],
        cache: DecoderCache,
        layers: tuple[Params, ...],
    ) -> tuple[Float[Array, "rows length vocabulary"], DecoderCache]:
        """Read on in targets, and score the next token after each token that was read.

        Args:
            decoder_input_ids: the tokens that follow those in the cache.
            cache: see `start_cache`.
            layers: see `unstack`.
        """
        halves, length = self._halves(), decoder_input_ids.shape[1]
        hidden = self._embed(decoder_input_ids, cache.length + jnp.arange(length)[None], True)
        scales, extended = self._scales(), []
        for number, layer in enumerate(layers):
            attention, written = read_on(length, cache, number, scales[number])
            for name, half in halves.items():
                variables = {"params": layer[name]}
                output = half.apply(variables, hidden, attention[name], deterministic=True)
                hidden = cast(Array, output)
            extended += written
        cache = dataclasses.replace(
            cache, length=cache.length + length, self_attention=tuple(extended)
        )
        return self._score(hidden), cache

    def _embed(self, ids: Any, positions: Any, deterministic: bool) -> Array:
        embedded = self.word_embeddings(ids) + self.position_embeddings(positions)
        return self.dropout(embedded, deterministic=deterministic).astype(self.dtype)

    def _score(self, hidden: Array) -> Array:
        return jnp.einsum(
            "bld,vd->blv",
            self.layer_norm(hidden),
            self.word_embeddings.embedding.astype(self.dtype),
            preferred_element_type=at_least_float32(self.dtype),
        )

    def _scales(self) -> Float[Array, " layers"]:
        """Return the factor of attention scores in each layer."""
        config = self.config
        scales = np.ones(config.n_layer)
        if config.scale_attn_weights:
            scales /= np.sqrt(config.n_embd // config.n_head)
        if config.scale_attn_by_inverse_layer_idx:
            scales /= np.arange(1, config.n_layer + 1)
        return jnp.asarray(scales, at_least_float32(self.dtype))

    def _halves(self) -> dict[str, nn.Module]:
        config, dtype = self.config, self.dtype
        cross = CrossAttention(config, dtype, parent=None)
        if self.encoder_config is not None:
            return {
                "attention": SelfAttention(self.encoder_config, dtype, parent=None),
                "cross_attention": cross,
                "feed_forward": FeedForward(self.encoder_config, dtype, parent=None),
            }
        return {
            "attention": CausalSelfAttention(config, dtype, parent=None),
            "cross_attention": cross,
            "feed_forward": DecoderFeedForward(config, dtype, parent=None),
        }

    def _by_depth(self, encoder_layers: Params | None) -> tuple[Params, Params]:
        """Return shared halves and those of each layer, without the axis of inner blocks."""
        stacks = {**(encoder_layers or {}), **self.layers}
        only_block = jax.tree.map(lambda leaf: leaf[:, 0], stacks)
        return split_by_depth(only_block, self.config.n_layer)

    def _initialize_layers(self, key: Array) -> Params:
        """Initialize the decoder's own halves, every copy independently."""
        config, halves = self.config, self._halves()
        copies = {
            "attention": config.attention_copies,
            "cross_attention": config.attention_copies,
            "feed_forward": config.feed_forward_copies,
        }
        own = list(halves) if self.encoder_config is None else ["cross_attention"]
        hidden = memory = jnp.zeros((1, 1, config.n_embd))

        def attention(query: Array, project: Any, *_: Any) -> Array:
            if callable(project):
                project(memory)
            return query

        def initialize(name: str, key: Array) -> Params:
            def one(key: Array) -> Params:
                variables = halves[name].init(key, hidden, attention, deterministic=True)
                return cast(Params, variables["params"])

            return jax.vmap(jax.vmap(one))(jax.random.split(key, (copies[name], 1)))

        keys = jax.random.split(key, len(own))
        return {name: initialize(name, key) for name, key in zip(own, keys, strict=True)}
