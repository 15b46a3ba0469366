"""Pre-training batches: the batch of any step as a function of corpus, configuration and seed.

A batch goes from the plan's rows through the pairs' draws and the layout of the rows (NumPy) to the
masks (the tf.data graph). Nothing on the way has a state, so any step can be asked for at once, and
any share of a batch's rows by itself.
"""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from data_pipeline import randomness
from data_pipeline.config import DataConfig, SentenceObjective, WordStartRule
from data_pipeline.corpus.reader import Corpus
from data_pipeline.errors import InputError
from data_pipeline.pretraining.mask_selection import Vocabulary, random_bits
from data_pipeline.pretraining.masking import budget_predictions, mask_rows
from data_pipeline.pretraining.rows import RowReader, Rows

_PARALLEL_BATCHES = 2  # being made at a time; the order stays that of the steps
_EVALUATION_SEED = 0


class PretrainingDataset:
    """The training batches of a corpus.

    Row g of the run, counted through all batches, is row `permutation(g mod R)` of the plan in
    epoch `g // R`, R being `rows_per_epoch`, with the permutation drawn anew each epoch. Segment
    split, swap and truncation are drawn from the seed, the epoch and the pair, and masks from the
    seed and g.

    Args:
        corpus: the corpus to read, whose split `train` is used.
        config: what rows are made of.
        seed: of all draws.
        global_batch_size: rows of a batch over all processes.

    Raises:
        InputError: the corpus is too small for a row, or its plan cannot be written.
    """

    def __init__(
        self, corpus: Corpus, config: DataConfig, *, seed: int, global_batch_size: int
    ) -> None:
        if global_batch_size < 1:
            raise InputError(f"a batch must hold at least 1 row, got {global_batch_size}")
        self.global_batch_size = global_batch_size
        self._reader = _BatchReader(corpus, "train", config, seed=seed)

    @property
    def rows_per_epoch(self) -> int:
        """R, the rows of an epoch; the same in each."""
        return self._reader.plan.num_rows

    @property
    def max_pairs_per_row(self) -> int:
        """M, the most pairs that any row holds."""
        return self._reader.plan.max_pairs

    @property
    def fill(self) -> float:
        """Share of the positions of all rows that hold no padding."""
        return self._reader.plan.fill

    def batches(
        self, *, start_step: int, rows: Int64[np.ndarray, " rows"] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batches of steps start_step, start_step + 1, ... without end.

        Args:
            start_step: the first step; any step costs the same.
            rows: which rows of each batch this process wants, as numbers from 0 to
                `global_batch_size - 1`; None means all.

        Returns:
            Dicts of the fields of `PretrainingBatch`.
        """
        wanted = _check_rows(rows, self.global_batch_size)
        firsts = tf.data.Dataset.counter(
            start_step * self.global_batch_size, self.global_batch_size
        )
        return self._reader.read(firsts, wanted)


def held_out_batches(
    corpus: Corpus,
    *,
    max_seq_length: int,
    batch_size: int,
    max_pairs: int | None = None,
    rows: Int64[np.ndarray, " rows"] | None = None,
    plan_dir: str = "",
    sentence_objective: SentenceObjective = SentenceObjective.SOP,
) -> Iterator[dict[str, np.ndarray]]:
    """The ruler by which every run is measured, whatever it trains with.

    One pair a row out of the held-out split, with masks over 15 % of the pieces in n-grams of up to
    three whole words; always the same pairs, splits, swaps and masks. Each pair comes once; rows
    that fill up the last batch hold nothing and weigh nothing.

    Args:
        corpus: the corpus to read, whose split `validation` is used.
        max_seq_length: positions a row.
        batch_size: rows of a batch over all processes.
        max_pairs: read no more pairs than this, taken at random but always the same; None: all.
        rows: as in `PretrainingDataset.batches`.
        plan_dir: as in `DataConfig`.
        sentence_objective: what the pairs' labels mean. Masked LM is measured on the pairs of
            sentence order; those of next sentence, which are others, measure that alone.

    Raises:
        InputError: the corpus holds no text out for validation.
    """
    config = held_out_config(max_seq_length, sentence_objective, plan_dir=plan_dir)
    reader = _BatchReader(corpus, "validation", config, seed=_EVALUATION_SEED)
    num_pairs = reader.plan.num_rows
    total = num_pairs if max_pairs is None else min(max_pairs, num_pairs)
    firsts = tf.data.Dataset.range(0, total, batch_size)
    return reader.read(firsts, _check_rows(rows, batch_size), total=total)


def held_out_config(
    max_seq_length: int, sentence_objective: SentenceObjective, *, plan_dir: str = ""
) -> DataConfig:
    """What the rows of `held_out_batches` are made of."""
    return DataConfig(
        plan_dir=plan_dir,
        max_seq_length=max_seq_length,
        max_predictions_per_seq=max(1, round(max_seq_length * 0.15)),
        short_seq_prob=0.0,
        sentence_objective=sentence_objective,
    )


class _BatchReader:
    """Reads any rows of a split, masks them and makes them batches."""

    def __init__(self, corpus: Corpus, split: str, config: DataConfig, *, seed: int) -> None:
        vocabulary = load_vocabulary(corpus, config.word_start_rule)
        self._rows = RowReader(
            corpus, split, config, seed=seed, cls_id=vocabulary.cls_id, sep_id=vocabulary.sep_id
        )
        self.plan = self._rows.plan
        self._config = config
        self._mask_key = randomness.derive_key(seed, "masks")
        # Traced once for each number of rows, however often batches are asked for.
        self._mask = tf.function(
            lambda *rows: mask_rows(*rows, config=config, vocabulary=vocabulary), autograph=False
        )

    def read(
        self, firsts: tf.data.Dataset, wanted: np.ndarray, *, total: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Batches of the rows `first + wanted` for each first; rows from `total` on are empty."""
        length = self._config.max_seq_length

        @tf.autograph.experimental.do_not_convert
        def make_batch(first: tf.Tensor) -> dict[str, tf.Tensor]:
            rows, budgets = self._assemble(first, wanted, total)
            draws = tf.concat(
                [
                    random_bits(self._mask_key, first + run[0], len(run), length)
                    for run in _split_runs(wanted)
                ],
                axis=0,
            )
            masked = self._mask(rows["input_ids"], rows["sequence_ids"], budgets, draws)
            return rows | masked._asdict()

        options = tf.data.Options()
        options.deterministic = True
        dataset = firsts.map(make_batch, num_parallel_calls=_PARALLEL_BATCHES)
        return dataset.prefetch(1).with_options(options).as_numpy_iterator()

    def _assemble(
        self, first: tf.Tensor, wanted: np.ndarray, total: int | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """The unmasked rows `first + wanted`, and how many pieces to predict in each pair."""

        def assemble(first: np.int64) -> tuple[np.ndarray, ...]:
            rows = self._rows.read(first + wanted, total=total)
            budgets = budget_predictions(
                rows.pair_lengths,
                masked_lm_prob=self._config.masked_lm_prob,
                slots=self._config.max_predictions_per_seq,
            )
            return *rows[:-1], budgets

        names = Rows._fields[:-1]
        types = [tf.float32 if name.endswith("_weights") else tf.int32 for name in names]
        *arrays, budgets = tf.numpy_function(assemble, [first], [*types, tf.int32], stateful=False)
        for name, array in zip(names, arrays, strict=True):
            columns = (
                self.plan.max_pairs if "sentence_order" in name else self._config.max_seq_length
            )
            array.set_shape([len(wanted), columns])
        budgets.set_shape([len(wanted), self.plan.max_pairs])
        return dict(zip(names, arrays, strict=True)), budgets


def load_vocabulary(corpus: Corpus, rule: WordStartRule) -> Vocabulary:
    """What masking has to know of the corpus's pieces."""
    tokenizer = corpus.load_tokenizer()
    return Vocabulary(
        word_starts=tokenizer.word_starts(rule),
        special_ids=tokenizer.special_ids,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        mask_id=tokenizer.mask_id,
    )


def _check_rows(rows: np.ndarray | None, batch_size: int) -> Int64[np.ndarray, " rows"]:
    if rows is None:
        return np.arange(batch_size)
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= batch_size:
        raise ValueError(f"rows of a batch must be numbers from 0 to {batch_size - 1}, got {rows}")
    return rows.astype(np.int64)


def _split_runs(rows: np.ndarray) -> list[np.ndarray]:
    """Runs of consecutive numbers, whose draws stand together in the stream."""
    return np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
