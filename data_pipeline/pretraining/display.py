"""Pre-training batches as text (pairs, order labels, masks), and the coverage of a corpus."""

from collections.abc import Mapping

import numpy as np

from data_pipeline.corpus.chunks import LOW_COVERAGE
from data_pipeline.corpus.reader import Corpus
from data_pipeline.tokenizers.tokenizer import Tokenizer

# ANSI codes of colors and font weights.
_SEGMENTS = ("36", "32")  # A cyan, B green
_MASKED, _KEPT, _REPLACED, _SPECIAL, _HEADING = "1;31", "4;33", "1;35", "2", "1"


def first_batch(corpus: Corpus, *, num_rows: int, seed: int) -> dict[str, np.ndarray]:
    """Return the first training batch with the default settings."""
    # TensorFlow takes seconds to import, and building a corpus does not need it.
    from data_pipeline.config import DataConfig
    from data_pipeline.pretraining.dataset import PretrainingDataset

    dataset = PretrainingDataset(corpus, DataConfig(), seed=seed, global_batch_size=num_rows)
    with dataset.batches(start_step=0) as batches:
        return next(batches)


def format_coverage(coverage: float, max_seq_length: int, *, cuts_long_sentences: bool) -> str:
    """Format the fraction of the training tokens that an epoch reads, as a warning if it is low.

    Args:
        coverage: the fraction.
        max_seq_length: the length of the rows.
        cuts_long_sentences: as in the corpus's metadata.

    Example: `format_coverage(0.97, 512, cuts_long_sentences=True)` is ``an epoch of rows of 512
    reads 97.0 % of the training tokens; the others are truncated, other ones in each epoch``.
    """
    text = (
        f"an epoch of rows of {max_seq_length} reads {100 * coverage:.1f} % of the training tokens;"
        " the others are truncated, other ones in each epoch"
    )
    if coverage >= LOW_COVERAGE:
        return text
    hint = "longer rows (--config.data.max_seq_length) read more"
    if not cuts_long_sentences:
        hint += "; so does the corpus built again, since long sentences are now cut"
    return f"warning: {text}: {hint}"


def format_batch(
    batch: Mapping[str, np.ndarray], tokenizer: Tokenizer, *, in_color: bool = True
) -> str:
    """Format all pairs of a batch, with a heading that states order, length and predictions.

    Segment A is cyan, B green. Predicted tokens are shown as input and label: `{[MASK]=king}` in
    red if masked, `{queen=king}` in magenta if replaced, `{king}` in yellow if kept.

    Args:
        batch: the fields of a `PretrainingBatch`.
        tokenizer: the tokenizer of the corpus.
        in_color: whether to use terminal colors.
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
    positions, ids = batch["masked_lm_positions"][row][used], batch["masked_lm_ids"][row][used]
    labels = dict(zip(positions.tolist(), ids.tolist(), strict=True))
    order = ("in order", "swapped")[batch["sentence_order_labels"][row, pair]]
    if not batch["sentence_order_weights"][row, pair]:
        order = "order not predicted"
    predictions = sum(position in labels for position in inside.tolist())
    heading = (
        f"row {row}, pair {pair + 1}: {order}, {len(inside)} positions, {predictions} predictions"
    )
    text = []
    for position in inside.tolist():
        id = int(batch["input_ids"][row, position])
        token, separate = tokenizer.surface_form(id)
        if position in labels:
            label, separate = tokenizer.surface_form(labels[position])
            if id == labels[position]:
                shown = paint(f"{{{label}}}", _KEPT)
            else:
                code = _MASKED if id == tokenizer.mask_id else _REPLACED
                shown = paint(f"{{{token}={label}}}", code)
        elif id in (tokenizer.cls_id, tokenizer.sep_id):
            separate, shown = True, paint(token, _SPECIAL)
        else:
            shown = paint(token, _SEGMENTS[batch["token_type_ids"][row, position]])
        text.append(f" {shown}" if separate else shown)
    return [paint(heading, _HEADING), "".join(text).strip(), ""]
