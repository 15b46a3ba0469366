"""What the figures of the sentence head are called, by what the head was asked."""

from collections.abc import Mapping

from data_pipeline.config import SentenceObjective

# The head and its loss are one; what their labels mean is the data's choice.
_STEMS: Mapping[SentenceObjective, str | None] = {
    SentenceObjective.SOP: "sentence_order",
    SentenceObjective.NSP: "next_sentence",
    SentenceObjective.NONE: None,
}


def stem(objective: SentenceObjective) -> str | None:
    """How the figures' names begin; None where nothing is asked."""
    return _STEMS[objective]
