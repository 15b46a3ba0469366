"""Choices of the model's settings: what the paper has, and what ablations compare with it."""

from enum import StrEnum


class HiddenAct(StrEnum):
    """Activation of the feed-forward layer and of the masked-LM head.

    The released files call the tanh form of GELU ``gelu``. Others use that name for the erf form,
    so the erf form has its own name here.
    """

    GELU = "gelu"
    GELU_ERF = "gelu_erf"
    RELU = "relu"
    TANH = "tanh"
    LINEAR = "linear"

    @classmethod
    def _missing_(cls, value: object) -> "HiddenAct | None":
        return cls.LINEAR if value in ("", None) else None


class ParameterSharing(StrEnum):
    """The half of a layer that all layers of a group share (ALBERT §4.5, Table 4)."""

    ALL = "all"
    ATTENTION = "attention"
    FFN = "ffn"
    NONE = "none"

    @property
    def shares_attention(self) -> bool:
        """True if layers share their attention."""
        return self in (ParameterSharing.ALL, ParameterSharing.ATTENTION)

    @property
    def shares_feed_forward(self) -> bool:
        """True if layers share their feed-forward half."""
        return self in (ParameterSharing.ALL, ParameterSharing.FFN)


class EmbeddingMapping(StrEnum):
    """A dense layer from embedding to hidden size: if they differ (the paper), or always."""

    WHEN_NEEDED = "when_needed"
    ALWAYS = "always"


class PositionEncoding(StrEnum):
    """Encoding of a token's position.

    All but the first depend only on distances along the row, which are also distances inside a pair
    of a packed row, and do not limit the length of a row.
    """

    ABSOLUTE = "absolute"  # a learned vector for each position, added to the token's (the paper)
    # Learned keys and values for each distance up to `max_relative_distance`, one for all beyond
    # it; shared by heads and layers (Shaw et al. 2018).
    RELATIVE_LOCAL = "relative_local"
    ROTARY = "rotary"  # queries and keys rotated by angles that grow along the row (Su et al. 2021)
    NONE = "none"  # no encoding: only the token types distinguish the segments


class Norm(StrEnum):
    """Position of a layer's norms: after each sum, as in the paper, or before each half.

    With all but ``post``, the output of the last layer is normalized once more.
    """

    POST = "post"
    PRE = "pre"
    SANDWICH = "sandwich"  # before each half, and on its result before the sum (Ding et al. 2021)

    @property
    def is_before(self) -> bool:
        """True if the input of each half is normalized."""
        return self is not Norm.POST


class NormKind(StrEnum):
    """What a norm divides by."""

    LAYER = "layer"  # the standard deviation, once the mean is subtracted; then a bias is added
    RMS = "rms"  # the root mean square; there is no bias (Zhang and Sennrich 2019)


class FeedForwardKind(StrEnum):
    """Feed-forward half: one wide layer, or the product of two narrower ones (Shazeer 2020).

    Each of the two has `AlbertConfig.feed_forward_width` units, for about as many parameters.
    """

    MLP = "mlp"
    GEGLU = "geglu"  # tanh GELU of one of them
    SWIGLU = "swiglu"  # SiLU, x * sigmoid(x), of one of them

    @property
    def is_gated(self) -> bool:
        """True if there are two layers."""
        return self is not FeedForwardKind.MLP


class DepthSignal(StrEnum):
    """What distinguishes the applications of a shared block: each has its own vectors of width H.

    They are initialized so that a model starts as the one without them.
    """

    NONE = "none"
    # Initially one; multiplies what each half adds (LayerScale, Touvron et al. 2021: near 0).
    SCALE = "scale"
    # Initially zero; added to the input (Dehghani et al. 2019: sinusoids).
    EMBEDDING = "embedding"


class Initialization(StrEnum):
    """Standard deviation of initial weights.

    Wide models turned out to need a smaller one: the authors' later models, with hidden sizes from
    768 to 4096, use 0.02, 0.02, 0.014 and 0.01. That is ``hidden_size`` with a range of 0.02.
    """

    FIXED = "fixed"  # initializer_range, whatever the width
    HIDDEN_SIZE = "hidden_size"  # that times sqrt(1024 / hidden_size), at most that
    FAN_IN = "fan_in"  # for each dense layer, that times sqrt(1024 / its inputs)
