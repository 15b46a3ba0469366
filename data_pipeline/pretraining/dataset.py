"""Training batches and held-out batches of a corpus, each a function of configuration and step.

A batch goes from the plan's rows through sampled segments and the layout of rows (NumPy) to the
masks (the tf.data graph). Nothing on the way has a state, so that any step, and any rows of its
batch, can be read directly.
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

_PARALLEL_BATCHES = 2  # in preparation at a time; they are still returned in order
_EVALUATION_SEED = 0


class TrainingDataset(Protocol):
    """Training batches of a corpus (`PretrainingDataset`) or of records (`RecordDataset`).

    The batch of step k is a function of the data, the seed and k. Row g of the run, counted through
    all batches, is row `permutation(g mod R)` of epoch `g // R`, with R `rows_per_epoch` and a
    permutation that is a function of the seed and the epoch.
    """

    @property
    def global_batch_size(self) -> int:
        """Rows of a batch over all processes."""
        ...

    @property
    def rows_per_epoch(self) -> int:
        """R, the rows of an epoch, the same for every epoch."""
        ...

    @property
    def max_pairs_per_row(self) -> int:
        """M, the maximum number of pairs in a row."""
        ...

    @property
    def fill(self) -> float:
        """Fraction of positions filled, over all rows."""
        ...

    def batches(
        self, *, start_step: int, rows: Int64[np.ndarray, " rows"] | None = None
    ) -> BatchIterator:
        """Return the batches of steps start_step, start_step + 1, ... without end, to be closed.

        Args:
            start_step: the first step; any step costs the same.
            rows: the rows of each batch that this process reads, as numbers from 0 to
                `global_batch_size - 1`; None means all.

        Returns:
            Dicts of the fields of `PretrainingBatch`.
        """
        ...


class PretrainingDataset:
    """The training batches of a corpus; see `TrainingDataset`.

    Segment split, swap and truncation are functions of the seed, the epoch and the pair; masks are
    functions of the seed and the row's number in the run.

    Args:
        corpus: the corpus to read, of which the split `train` is used.
        config: how rows are made.
        seed: of all random numbers.
        global_batch_size: rows of a batch over all processes.

    Attributes:
        plan: the rows of an epoch.
        coverage: fraction of the corpus's training tokens that an epoch reads.

    Raises:
        InputError: the corpus is too small for a row.
        FieldError: there are no rows in a batch, or the plan cannot be written.
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
        """Return the batches from a step on; see `TrainingDataset.batches`."""
        wanted = rows_of_batch(rows, self.global_batch_size)
        firsts = tf.data.Dataset.counter(
            start_step * self.global_batch_size, self.global_batch_size
        )
        return BatchIterator(self._reader.read(firsts, wanted).as_numpy_iterator())


class HeldOutDataset:
    """The batches of held-out evaluation, the same for every run.

    One pair a row from the held-out split, with 15 % of the tokens masked in n-grams of up to three
    whole words; always the same pairs, splits, swaps and masks. Each pair comes once; the rows that
    fill the last batch are empty and have weight 0.

    Open it once: TensorFlow keeps what its graph calls for as long as the process lives.

    Args:
        corpus: the corpus to read, of which the split `validation` is used.
        max_seq_length: positions in a row.
        batch_size: rows of a batch over all processes.
        max_pairs: upper bound of the pairs to read, a fixed random subset; None means all.
        rows: as in `TrainingDataset.batches`.
        plan_dir: as in `DataConfig`.
        sentence_objective: the meaning of the pairs' labels. Masked LM is evaluated on the pairs of
            sentence order; those of next sentence differ, and evaluate that objective alone.

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
        """Return all batches, each time from the first on: dicts of `PretrainingBatch`'s fields."""
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
    """Reads any rows of a split, masks them and batches them."""

    def __init__(self, corpus: Corpus, split: str, config: DataConfig, *, seed: int) -> None:
        vocabulary = load_vocabulary(corpus, config.word_start_rule)
        self._rows = RowReader(
            corpus, split, config, seed=seed, cls_id=vocabulary.cls_id, sep_id=vocabulary.sep_id
        )
        self.plan = self._rows.plan
        self._config = config
        self._mask_key = randomness.derive_key(seed, "masks")
        # Traced once for each number of rows, however often batches are requested.
        self._mask = tf.function(
            lambda *rows: mask_rows(*rows, config=config, vocabulary=vocabulary), autograph=False
        )

    def read(
        self, firsts: tf.data.Dataset, wanted: np.ndarray, *, total: int | None = None
    ) -> tf.data.Dataset:
        """Batches of the rows `first + wanted` for each first; rows from `total` on are empty."""
        length = self._config.max_seq_length
        # Consecutive rows have consecutive random bits, which are generated together.
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
        # Nothing is left to tune, and its thread lets an iterator's end wait until it wakes up: the
        # longer the run, the later, up to a minute.
        options.autotune.enabled = False
        dataset = firsts.map(make_batch, num_parallel_calls=_PARALLEL_BATCHES)
        return dataset.prefetch(1).with_options(options)

    def _assemble(
        self, first: tf.Tensor, wanted: np.ndarray, total: int | None
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Return the rows `first + wanted` before masking, and the predictions of each pair."""

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
