"""Configuration of the decoder: GPT-2's fields, sharing, and the special tokens of its targets."""

import dataclasses
from typing import Any

from albert_jax.config import (
    AlbertConfig,
    DepthSignal,
    HiddenAct,
    ParameterSharing,
    PositionEncoding,
)
from albert_jax.settings import FieldError, check_settings, setting

# Upper bounds, like those of `AlbertConfig`.
_MOST_TOKENS = 10_000_000
_WIDEST = 1 << 20
_MOST_LAYERS = 1000


@dataclasses.dataclass(frozen=True)
class Gpt2Config:
    """Configuration of a decoder, with GPT-2's field names and the defaults of the smallest GPT-2.

    Targets begin with `bos_token_id`, which transformers calls ``decoder_start_token_id``, end with
    `eos_token_id`, and are padded with `pad_token_id`.

    Raises:
        FieldError: a value is not allowed. Padding must not be the start token: transformers
            masks padding in training but not in generation, so such a model would meet a start
            token in generation that it has not seen in training.
    """

    vocab_size: int = setting(
        50257, "tokens in the vocabulary of targets", at_least=1, at_most=_MOST_TOKENS
    )
    n_positions: int = setting(
        1024, "rows of the position table, the longest target", at_least=1, at_most=_WIDEST
    )
    n_embd: int = setting(768, "width of the embeddings and layers", at_least=1, at_most=_WIDEST)
    n_layer: int = setting(12, "layers", at_least=1, at_most=_MOST_LAYERS)
    n_head: int = setting(12, "attention heads", at_least=1, at_most=_WIDEST)
    n_inner: int | None = setting(
        None,
        "width inside the feed-forward layer; none for 4 n_embd",
        at_least=1,
        at_most=4 * _WIDEST,
    )
    activation_function: HiddenAct = setting(HiddenAct.GELU, "activation of the feed-forward layer")
    resid_pdrop: float = setting(0.1, "dropout of what layers add", at_least=0, below=1)
    embd_pdrop: float = setting(0.1, "dropout of embeddings", at_least=0, below=1)
    attn_pdrop: float = setting(0.1, "dropout of attention probabilities", at_least=0, below=1)
    layer_norm_epsilon: float = setting(1e-5, "added to the variance in layer norm", above=0)
    initializer_range: float = setting(0.02, "standard deviation of initial weights", above=0)
    scale_attn_weights: bool = setting(True, "divide attention scores by the root of the width")
    scale_attn_by_inverse_layer_idx: bool = setting(
        False, "divide attention scores, of cross-attention too, by 1, 2, 3, ... up the layers"
    )
    bos_token_id: int = setting(
        50256, "token with which targets begin", at_least=0, at_most=_MOST_TOKENS
    )
    eos_token_id: int = setting(
        50256, "token with which targets end", at_least=0, at_most=_MOST_TOKENS
    )
    pad_token_id: int = setting(
        0, "padding behind targets, not bos_token_id", at_least=0, at_most=_MOST_TOKENS
    )

    # Fields that GPT-2 lacks.
    parameter_sharing: ParameterSharing = setting(
        ParameterSharing.NONE, "the half of a layer that all layers share; cross-attention too"
    )
    tie_to_encoder: bool = setting(
        False, "layers are the encoder's, made causal, with cross-attention of their own"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.n_embd % self.n_head:
            raise FieldError("n_embd", f"a multiple of n_head ({self.n_head})", self.n_embd)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if getattr(self, name) >= self.vocab_size:
                below = f"less than vocab_size ({self.vocab_size})"
                raise FieldError(name, below, getattr(self, name))
        if self.pad_token_id == self.bos_token_id:
            other = "another token than bos_token_id, with which targets begin"
            raise FieldError("pad_token_id", other, self.pad_token_id)

    @property
    def inner_size(self) -> int:
        """Width inside the feed-forward layer."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def attention_copies(self) -> int:
        """Number of sets of parameters of self-attention and of cross-attention."""
        return 1 if self.parameter_sharing.shares_attention else self.n_layer

    @property
    def feed_forward_copies(self) -> int:
        """Number of sets of feed-forward parameters."""
        return 1 if self.parameter_sharing.shares_feed_forward else self.n_layer

    def check_length(self, field: str, length: int) -> None:
        """Check that there is a position for every token of a target except the last.

        Raises:
            FieldError: there is not; the error is about `field`.
        """
        if length > self.n_positions:
            raise FieldError(field, f"at most n_positions ({self.n_positions})", length)

    def check_tying(self, encoder: AlbertConfig) -> None:
        """Check that this decoder can use an encoder's layers, if it is to be tied to them.

        Raises:
            FieldError: sizes differ, or the encoder has layers that no decoder can use.
        """
        if not self.tie_to_encoder:
            return
        sizes = {
            "n_embd": (self.n_embd, "hidden_size"),
            "n_head": (self.n_head, "num_attention_heads"),
            "n_inner": (self.inner_size, "intermediate_size"),
            "n_layer": (self.n_layer, "num_hidden_layers"),
        }
        for name, (size, encoder_name) in sizes.items():
            wanted = getattr(encoder, encoder_name)
            if size != wanted:
                alike = f"the encoder's {encoder_name} ({wanted}) with tie_to_encoder"
                raise FieldError(name, alike, size)
        absolute = encoder.position_encoding is PositionEncoding.ABSOLUTE
        differ = encoder.depth_rank or encoder.depth_signal is not DepthSignal.NONE
        differ = differ or encoder.num_experts or encoder.attention_window
        if not absolute or encoder.inner_group_num > 1 or differ:
            needed = (
                "absolute positions, inner_group_num 1, and neither depth_rank, depth_signal, "
                "experts nor attention_window"
            )
            reason = f"false unless the encoder has {needed}"
            raise FieldError("tie_to_encoder", reason, True)


@dataclasses.dataclass(frozen=True)
class DecoderSizes:
    """Settings of a new decoder; a run that starts from a pre-trained one takes its sizes.

    Raises:
        FieldError: a value is not allowed.
    """

    n_embd: int | None = setting(None, "width; none: that of the encoder", at_least=1)
    n_layer: int | None = setting(
        None, "layers; none: as many as the encoder has", at_least=1, at_most=1000
    )
    n_head: int | None = setting(
        None, "attention heads; none: the encoder's, or 64 wide ones", at_least=1
    )
    n_inner: int | None = setting(
        None,
        "width inside the feed-forward layer; none: 4 n_embd, or the encoder's if they are tied",
        at_least=1,
    )
    activation_function: HiddenAct = setting(HiddenAct.GELU, "activation of the feed-forward layer")
    parameter_sharing: ParameterSharing = setting(
        ParameterSharing.NONE, "the half of a layer that all layers share; cross-attention too"
    )
    tie_to_encoder: bool = setting(
        False, "layers are the encoder's, made causal, with cross-attention of their own"
    )
    dropout: float = setting(
        0.1, "of embeddings, attention and what layers add", at_least=0, below=1
    )
    rate_factor: float = setting(
        1.0,
        "learning rate, relative to that of the encoder, of what starts at random beside it: the "
        "decoder, or with run.init_decoder_from its cross-attention",
        above=0,
        at_most=1000,
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def dropout_fields(self) -> dict[str, Any]:
        """Return the fields of `Gpt2Config` that `dropout` sets."""
        return dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), self.dropout)

    def complete(
        self,
        encoder: AlbertConfig,
        *,
        vocab_size: int,
        longest: int,
        bos_token_id: int,
        eos_token_id: int,
        pad_token_id: int,
    ) -> Gpt2Config:
        """Return the configuration of a new decoder.

        Args:
            encoder: the encoder that it reads from.
            vocab_size: number of tokens in the vocabulary of targets.
            longest: number of tokens of the longest target; the position table has as many rows,
                rounded up to a multiple of 8.
            bos_token_id: token with which targets begin.
            eos_token_id: token with which they end.
            pad_token_id: padding behind them.

        Raises:
            FieldError: the sizes do not go together, or cannot be the encoder's with
                `tie_to_encoder`.
        """
        width = self.n_embd or encoder.hidden_size
        decoder = Gpt2Config(
            vocab_size=vocab_size,
            n_positions=-(-longest // 8) * 8,
            n_embd=width,
            n_layer=self.n_layer or encoder.num_hidden_layers,
            n_head=self.n_head or _heads(width, encoder),
            n_inner=self.n_inner or (encoder.intermediate_size if self.tie_to_encoder else None),
            activation_function=self.activation_function,
            parameter_sharing=self.parameter_sharing,
            tie_to_encoder=self.tie_to_encoder,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
            **self.dropout_fields(),
        )
        decoder.check_tying(encoder)
        return decoder


def _heads(width: int, encoder: AlbertConfig) -> int:
    """Return the encoder's number of heads if widths are equal, else as many as are 64 wide."""
    if width == encoder.hidden_size:
        return encoder.num_attention_heads
    if width % 64:
        raise FieldError("n_head", f"set for a width ({width}) that is no multiple of 64", None)
    return width // 64
