"""ALBERT with a GPT-2 decoder that writes about what it reads: the model, and its directories.

Both may be pre-trained. Cross-attention is not, nor is the dense layer from the encoder's width to
the decoder's if they differ (Rothe et al. 2020, "Leveraging Pre-trained Checkpoints for Sequence
Generation Tasks").
"""

import os
from typing import Any, TypeVar

import flax.struct
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Float, Int, PyTree

from albert_jax.config import AlbertConfig
from albert_jax.decoder.cache import DecoderCache
from albert_jax.decoder.config import Gpt2Config
from albert_jax.decoder.decoder import Gpt2Decoder, Memory
from albert_jax.encoder import Execution, Params
from albert_jax.generation.config import GenerationOptions
from albert_jax.generation.stored_decoder import open_decoder
from albert_jax.generation.stored_options import options_to_json
from albert_jax.interop.encoder_decoder import join_weights, save_encoder_decoder
from albert_jax.interop.saving import SavableTokenizer
from albert_jax.interop.stored_weights import ENCODER
from albert_jax.layers import AnyArray, dense
from albert_jax.model import AlbertModel
from albert_jax.pretrained import PretrainedModel, open_weights

Model = TypeVar("Model", bound="AlbertForConditionalGeneration")


@flax.struct.dataclass
class Seq2SeqOutput:
    """The output of `AlbertForConditionalGeneration`. Logits are at least float32."""

    logits: Float[AnyArray, "batch target vocabulary"]
    encoder_last_hidden_state: Float[AnyArray, "batch source hidden"]


class AlbertForConditionalGeneration(PretrainedModel, nn.Module):
    """ALBERT with a decoder: parameters are under ``albert`` and ``decoder``.

    Attributes:
        config: the encoder's configuration.
        decoder_config: the decoder's configuration.
        dtype: type of activations and matmuls; parameters are float32.
        execution: how the encoder's layers are computed. Of it, only `remat` and `unroll` also
            apply to the decoder's layers; their attention, norms and matrix products are the
            default ones, also in layers that are tied to the encoder's.
    """

    config: AlbertConfig
    decoder_config: Gpt2Config
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    def __post_init__(self) -> None:
        self.decoder_config.check_tying(self.config)
        super().__post_init__()

    def setup(self) -> None:
        config, decoder, dtype = self.config, self.decoder_config, self.dtype
        self.albert = AlbertModel(config, dtype, self.execution)
        unlike = config.hidden_size != decoder.n_embd
        self.enc_to_dec_proj = dense(config, decoder.n_embd, dtype) if unlike else None
        tied_to = config if decoder.tie_to_encoder else None
        self.decoder = Gpt2Decoder(decoder, dtype, self.execution, tied_to)

    def smallest_inputs(self) -> dict[str, Any]:
        return {name: np.zeros((1, 1), np.int32) for name in ("input_ids", "decoder_input_ids")}

    def __call__(
        self,
        input_ids: Int[AnyArray, "batch source"],
        attention_mask: Int[AnyArray, "batch source"] | None = None,
        token_type_ids: Int[AnyArray, "batch source"] | None = None,
        position_ids: Int[AnyArray, "#batch source"] | None = None,
        *,
        decoder_input_ids: Int[AnyArray, "batch target"],
        deterministic: bool = True,
    ) -> Seq2SeqOutput:
        """Score the next token after each token of a target.

        Args:
            input_ids: the source.
            attention_mask: see `AlbertModel`.
            token_type_ids: see `AlbertModel`.
            position_ids: see `AlbertModel`.
            decoder_input_ids: the target, from the start token on. A token sees only those before
                it, so padding after a target does not affect it.
            deterministic: no dropout. Otherwise ``rngs={"dropout": key}`` is needed.

        Raises:
            FieldError: the target is longer than the decoder's position table.
        """
        self.decoder_config.check_length("length of targets", decoder_input_ids.shape[1])
        hidden, memory = self._read(
            input_ids, attention_mask, token_type_ids, position_ids, deterministic
        )
        logits = self.decoder(
            decoder_input_ids,
            memory,
            _as_bool(attention_mask),
            self._encoder_layers(),
            deterministic=deterministic,
        )
        return Seq2SeqOutput(logits, hidden)

    def encode(
        self,
        input_ids: Int[AnyArray, "batch source"],
        attention_mask: Int[AnyArray, "batch source"] | None = None,
        token_type_ids: Int[AnyArray, "batch source"] | None = None,
        position_ids: Int[AnyArray, "#batch source"] | None = None,
        *,
        length: int,
        beams: int = 1,
    ) -> DecoderCache:
        """Read sources, and return a cache for `beams` targets of each, up to `length` tokens long.

        Raises:
            FieldError: targets are longer than the decoder's position table.
        """
        self.decoder_config.check_length("length of targets", length)
        _, memory = self._read(input_ids, attention_mask, token_type_ids, position_ids, True)
        return self.decoder.start_cache(
            memory, _as_bool(attention_mask), length=length, beams=beams
        )

    def decode(
        self,
        decoder_input_ids: Int[AnyArray, "rows target"],
        cache: DecoderCache,
        layers: tuple[Params, ...] | None = None,
    ) -> tuple[Float[AnyArray, "rows target vocabulary"], DecoderCache]:
        """Read on in targets; return the logits after each of these tokens, and the new cache.

        Args:
            decoder_input_ids: the tokens that follow those in the cache.
            cache: see `encode`.
            layers: what `unstack` returns, if it is called once for many calls of `decode`.
        """
        return self.decoder.extend(decoder_input_ids, cache, layers or self.unstack())

    def unstack(self) -> tuple[Params, ...]:
        """Return the parameters of each layer of the decoder."""
        return self.decoder.unstack(self._encoder_layers())

    def _read(self, *inputs: Any) -> tuple[Any, Memory]:
        """Return the encoder's output, at its own width and at the decoder's."""
        *arrays, deterministic = inputs
        hidden = self.albert(*arrays, deterministic=deterministic).last_hidden_state
        return hidden, hidden if self.enc_to_dec_proj is None else self.enc_to_dec_proj(hidden)

    def _encoder_layers(self) -> Params | None:
        if not self.decoder_config.tie_to_encoder:
            return None
        return self.albert.encoder.get_variable("params", "layers")

    @classmethod
    def from_encoder_decoder_pretrained(
        cls: type[Model],
        encoder: epath.PathLike,
        decoder: epath.PathLike,
        *,
        dtype: DTypeLike = jnp.float32,
        strict: bool = True,
        **decoder_settings: Any,
    ) -> tuple[Model, PyTree]:
        """Return a model that starts from a pre-trained encoder and a pre-trained decoder.

        Cross-attention, and the layer from one width to the other, are initialized at random with
        `albert_jax.pretrained.INITIALIZATION_SEED`, and logged, if the decoder comes without them.

        Args:
            encoder: what `AlbertModel.from_pretrained` reads.
            decoder: what `open_decoder` opens: a GPT-2, or a model with a decoder.
            dtype: see `PretrainedModel.from_pretrained`.
            strict: likewise.
            decoder_settings: settings of `Gpt2Config` that replace those of the directory. GPT-2
                has no padding token, so `pad_token_id` is needed: any token except the first of a
                target.

        Raises:
            WeightsError: one of them cannot be read, or does not fit its configuration.
            FieldError: a setting is not allowed.
        """
        of_decoder, config = open_decoder(decoder, decoder_settings)
        stored = join_weights(open_weights(encoder), of_decoder)
        model = cls(stored.config, config, dtype=dtype)
        return model, model.fit(stored, required=model.pretrained_names(), strict=strict)

    def pretrained_names(self) -> tuple[str, ...]:
        """Return prefixes of the parameters that a pre-trained encoder and decoder have.

        Cross-attention and the layer from one width to the other are not among them.
        """
        own = (name for name in self.parameter_shapes() if name.startswith("decoder/"))
        return *ENCODER, *(name for name in own if "/cross_attention/" not in name)

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        params: PyTree,
        tokenizer: SavableTokenizer | None = None,
        options: GenerationOptions | None = None,
    ) -> None:
        """Write a directory that transformers' EncoderDecoderModel loads.

        Args:
            path: a new directory; it appears when it is complete.
            params: the model's parameters, all of one type; the file has that type.
            tokenizer: tokenizer of the source, written beside the model.
            options: options of generation, which become the default in transformers.

        Raises:
            WeightsError: the directory exists, the parameters are not the model's, the vocabulary
                is not the tokenizer's, or transformers has no such model, as with `tie_to_encoder`.
        """
        flat = self.check_parameters(params)
        json = {} if options is None else options_to_json(options)
        save_encoder_decoder(path, flat, self.config, self.decoder_config, tokenizer, json)


def _as_bool(mask: Any) -> Any:
    return None if mask is None else jnp.asarray(mask, bool)
