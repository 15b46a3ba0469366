"""A pre-training batch as a person reads it: pairs, order labels, and what the masks hide."""

import os
from collections.abc import Mapping

import numpy as np

from data_pipeline.corpus.reader import Corpus
from data_pipeline.tokenizers.sentencepiece import WORD_MARK
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.tokenizers.wordpiece import CONTINUATION, WordPieceTokenizer

# Codes of a terminal's colors and weights.
_SEGMENTS = ("36", "32")  # A cyan, B green
_HIDDEN, _KEPT, _REPLACED, _SPECIAL, _HEADING = "1;31", "4;33", "1;35", "2", "1"


def first_batch(corpus: Corpus, *, num_rows: int, seed: int) -> dict[str, np.ndarray]:
    """The first training batch with the released settings."""
    # TensorFlow takes seconds to load, and building a corpus does without. It also chatters.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from data_pipeline.config import DataConfig
    from data_pipeline.pretraining.dataset import PretrainingDataset

    dataset = PretrainingDataset(corpus, DataConfig(), seed=seed, global_batch_size=num_rows)
    return next(iter(dataset.batches(start_step=0)))


def format_batch(
    batch: Mapping[str, np.ndarray], tokenizer: Tokenizer, *, in_color: bool = True
) -> str:
    """All pairs of a batch, each under a line that tells its order, length and predictions.

    Segment A is cyan, B green. Of a predicted piece both what stands in the text and what is asked
    for are shown: `{[MASK]=king}` in red if it is hidden, `{queen=king}` in magenta if it is
    replaced, `{king}` in yellow if it is left as it is.

    Args:
        batch: the fields of a `PretrainingBatch`.
        tokenizer: of the corpus.
        in_color: whether to use a terminal's colors.
    """
    lines = []
    for row in range(len(batch["input_ids"])):
        for pair in range(batch["sentence_order_weights"].shape[1]):
            inside = np.flatnonzero(batch["sequence_ids"][row] == pair + 1)
            if len(inside):
                lines += _format_pair(batch, row, pair, inside, tokenizer, in_color)
    return "\n".join(lines)


def _format_pair(
    batch: Mapping[str, np.ndarray],
    row: int,
    pair: int,
    inside: np.ndarray,
    tokenizer: Tokenizer,
    in_color: bool,
) -> list[str]:
    def paint(text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if in_color else text

    used = batch["masked_lm_weights"][row] > 0
    asked = dict(
        zip(
            batch["masked_lm_positions"][row][used].tolist(),
            batch["masked_lm_ids"][row][used].tolist(),
            strict=True,
        )
    )
    order = ("in order", "swapped")[batch["sentence_order_labels"][row, pair]]
    if not batch["sentence_order_weights"][row, pair]:
        order = "order not asked"
    predictions = sum(position in asked for position in inside.tolist())
    heading = (
        f"row {row}, pair {pair + 1}: {order}, {len(inside)} positions, {predictions} predictions"
    )
    text = []
    for position in inside.tolist():
        id = int(batch["input_ids"][row, position])
        space, piece = _as_text(tokenizer.tokens[id], tokenizer)
        if position in asked:
            space, wanted = _as_text(tokenizer.tokens[asked[position]], tokenizer)
            if id == asked[position]:
                shown = paint(f"{{{wanted}}}", _KEPT)
            else:
                code = _HIDDEN if id == tokenizer.mask_id else _REPLACED
                shown = paint(f"{{{piece}={wanted}}}", code)
        elif id in (tokenizer.cls_id, tokenizer.sep_id):
            space, shown = " ", paint(piece, _SPECIAL)
        else:
            shown = paint(piece, _SEGMENTS[batch["token_type_ids"][row, position]])
        text.append(space + shown)
    return [paint(heading, _HEADING), "".join(text).strip(), ""]


def _as_text(piece: str, tokenizer: Tokenizer) -> tuple[str, str]:
    """The space before a piece, if there is one, and its letters."""
    if isinstance(tokenizer, WordPieceTokenizer):
        return ("", piece[len(CONTINUATION) :]) if piece.startswith(CONTINUATION) else (" ", piece)
    return (" ", piece[1:]) if piece.startswith(WORD_MARK) else ("", piece)
