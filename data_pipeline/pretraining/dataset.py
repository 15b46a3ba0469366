"""Training and held-out batches of a corpus, each a function of the configuration and the step.

For each batch, NumPy code looks up the rows in the plan, samples the segments of their pairs and
lays the rows out. The tf.data graph then masks them. No stage keeps state, so any step, and any
rows of its batch, can be read directly.
"""

from typing import Protocol

import numpy as np
import tensorflow as tf
from jaxtyping import Int64

from albert_jax.settings import FieldError
from data_pipeline import randomness
from data_pipeline.batch_iterator import BatchIterator
from data_pipeline.config import DataConfig, SentenceObjective, WordStartRule
from data_pipeline.corpus.reader import Corpus
from data_pipeline.pretraining.mask_selection import Vocabulary, random_row_bits
from data_pipeline.pretraining.masking import budget_predictions, mask_rows
from data_pipeline.pretraining.rows import RowReader, Rows, rows_of_batch

_PARALLEL_BATCHES = 2  # prepared in parallel, but returned in order
_EVALUATION_SEED = 0


class TrainingDataset(Protocol):
    """Training batches of a corpus (`PretrainingDataset`) or of records (`RecordDataset`).

    The batch of step k is a function of the data, the seed and k. Row g of the run, counted over
    all batches, is row `permutation(g mod R)` of epoch `g // R`, where R is `rows_per_epoch` and
    the permutation is a function of the seed and the epoch.
    """

    @property
    def global_batch_size(self) -> int:
        """Number of rows in a batch over all processes."""
        ...

    @property
    def rows_per_epoch(self) -> int:
        """R, the number of rows in an epoch, the same for every epoch."""
        ...

    @property
    def max_pairs_per_row(self) -> int:
        """M, the maximum number of pairs in a row."""
        ...

    @property
    def fill(self) -> float:
        """Fraction of the positions of all rows that are filled."""
        ...

    def batches(
        self, *, start_step: int, rows: Int64[np.ndarray, " rows"] | None = None
    ) -> BatchIterator:
        """Return an endless iterator over the batches of steps start_step, start_step + 1, ...

        The caller closes it.

        Args:
            start_step: the first step; starting at any step costs the same.
            rows: the rows of each batch that this process reads, as numbers from 0 to
                `global_batch_size - 1`; None means all.

        Returns:
            Dicts of the fields of `PretrainingBatch`.
        """
        ...


class PretrainingDataset:
    """The training batches of a corpus; see `TrainingDataset`.

    The split into segments, the swap and the truncation of a pair are functions of the seed, the
    epoch and the pair. Masks are functions of the seed and the row's number in the run.

    Args:
        corpus: the corpus to read; its split `train` is used.
        config: how rows are made.
        seed: the seed of all random numbers.
        global_batch_size: number of rows in a batch over all processes.

    Attributes:
        plan: the rows of an epoch.
        coverage: fraction of the corpus's training tokens that an epoch reads.

    Raises:
        InputError: the corpus is too small for one row.
        FieldError: the batch size is less than 1, or the plan cannot be written.
    """

    def __init__(
        self, corpus: Corpus, config: DataConfig, *, seed: int, global_batch_size: int
    ) -> None:
        if global_batch_size < 1:
            raise FieldError("global_batch_size", "at least 1", global_batch_size)
        self.global_batch_size = global_batch_size
        self._reader = _BatchReader(corpus, "train", config, seed=seed)
        self.plan = plan = self._reader.plan
        self.rows_per_epoch, self.max_pairs_per_row = plan.num_rows, plan.max_pairs
        self.fill = plan.fill
        self.coverage = plan.coverage

    def batches(
        self, *, start_step: int, rows: Int64[np.ndarray, " rows"] | None = None
    ) -> BatchIterator:
        """Return the batches from a step onward; see `TrainingDataset.batches`."""
        wanted = rows_of_batch(rows, self.global_batch_size)
        firsts = tf.data.Dataset.counter(
            start_step * self.global_batch_size, self.global_batch_size
        )
        return BatchIterator(self._reader.read(firsts, wanted).as_numpy_iterator())


class HeldOutDataset:
    """The batches for held-out evaluation, the same for every run.

    Each row holds one pair of the held-out split, with 15 % of its tokens masked in n-grams of up
    to three whole words. The pairs, splits, swaps and masks never change. Each pair is read once;
    the rows that fill up the last batch are empty and have weight 0.

    Open a dataset only once: TensorFlow keeps the functions that its graph calls for the lifetime
    of the process.

    Args:
        corpus: the corpus to read; its split `validation` is used.
        max_seq_length: number of positions in a row.
        batch_size: number of rows in a batch over all processes.
        max_pairs: read at most this many pairs, a fixed random subset; None means all.
        rows: as in `TrainingDataset.batches`.
        plan_dir: as in `DataConfig`.
        sentence_objective: the objective that defines the pairs' labels. Masked LM is evaluated on
            the pairs for sentence order. The pairs for next sentence differ and are used to
            evaluate that objective only.

    Raises:
        InputError: the corpus has no held-out text.
        FieldError: the plan cannot be written.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        max_seq_length: int,
        batch_size: int,
        max_pairs: int | None = None,
        rows: Int64[np.ndarray, " rows"] | None = None,
        plan_dir: str = "",
        sentence_objective: SentenceObjective = SentenceObjective.SOP,
    ) -> None:
        config = held_out_config(max_seq_length, sentence_objective, plan_dir=plan_dir)
        reader = _BatchReader(corpus, "validation", config, seed=_EVALUATION_SEED)
        num_pairs = reader.plan.num_rows
        total = num_pairs if max_pairs is None else min(max_pairs, num_pairs)
        firsts = tf.data.Dataset.range(0, total, batch_size)
        self._batches = reader.read(firsts, rows_of_batch(rows, batch_size), total=total)

    def batches(self) -> BatchIterator:
        """Return all batches from the first one: dicts of the fields of `PretrainingBatch`."""
        return BatchIterator(self._batches.as_numpy_iterator())


def held_out_config(
    max_seq_length: int, sentence_objective: SentenceObjective, *, plan_dir: str = ""
) -> DataConfig:
    """Return the configuration of the rows of a `HeldOutDataset`."""
    return DataConfig(
        plan_dir=plan_dir,
        max_seq_length=max_seq_length,
        max_predictions_per_seq=max(1, round(max_seq_length * 0.15)),
        short_seq_prob=0.0,
        sentence_objective=sentence_objective,
    )


class _BatchReader:
    """Reads arbitrary rows of a split, masks them and batches them."""

    def __init__(self, corpus: Corpus, split: str, config: DataConfig, *, seed: int) -> None:
        vocabulary = load_vocabulary(corpus, config.word_start_rule)
        self._rows = RowReader(
            corpus, split, config, seed=seed, cls_id=vocabulary.cls_id, sep_id=vocabulary.sep_id
        )
        self.plan = self._rows.plan
        self._config = config
        self._mask_key = randomness.derive_key(seed, "masks")
        # Traced once per number of rows, however often batches are requested.
        self._mask = tf.function(
            lambda *rows: mask_rows(*rows, config=config, vocabulary=vocabulary), autograph=False
        )

    def read(
        self, firsts: tf.data.Dataset, wanted: np.ndarray, *, total: int | None = None
    ) -> tf.data.Dataset:
        """Return a batch per first: the rows `first + wanted`; rows from `total` on are empty."""
        length = self._config.max_seq_length
        # Consecutive rows use consecutive random bits, which are generated together.
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1)

        @tf.autograph.experimental.do_not_convert
        def make_batch(first: tf.Tensor) -> dict[str, tf.Tensor]:
            rows, budgets = self._assemble(first, wanted, total)
            bits = [random_row_bits(self._mask_key, first + r[0], len(r), length) for r in runs]
            masked = self._mask(
                rows["input_ids"], rows["sequence_ids"], budgets, tf.concat(bits, axis=0)
            )
            return rows | masked._asdict()

        options = tf.data.Options()
        options.deterministic = True
        # There is nothing to tune. The tuning thread delays the end of an iterator until it wakes
        # up: up to a minute, depending on the length of the run.
        options.autotune.enabled = False
        dataset = firsts.map(make_batch, num_parallel_calls=_PARALLEL_BATCHES)
        return dataset.prefetch(1).with_options(options)

    def _assemble(
        self, first: tf.Tensor, wanted: np.ndarray, total: int | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Return the rows `first + wanted` before masking, and the predictions per pair."""

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
    """Return the properties of a corpus's tokens that masking depends on."""
    tokenizer = corpus.load_tokenizer()
    return Vocabulary(
        word_starts=tokenizer.word_starts(rule),
        special_ids=tokenizer.special_ids,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        mask_id=tokenizer.mask_id,
    )
