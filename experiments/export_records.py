r"""Write an experiment's batches as record files that the released code reads.

    python -m experiments.export_records --config=experiments/configs/albert_base_v1.py \
        --config.data.corpus_dir=corpora/wiki_en --output_file=a.tfrecord,b.tfrecord
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import flags

from albert_jax.settings import FieldError
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.pretraining.dataset import PretrainingDataset, load_vocabulary
from data_pipeline.pretraining.tfrecord import write_records
from experiments.cli.command import run
from experiments.cli.config_flag import define_config_flag, read_config_flag
from experiments.cli.exit_codes import ExitCode
from experiments.run.config import ExperimentConfig

_ROWS_PER_BATCH = 256


def export_records(config: ExperimentConfig, paths: list[Path], num_epochs: int) -> int:
    """Write whole epochs, each with its own masks.

    The format has no weights for sentence order. Programs that read the records therefore also
    predict the order of the few pairs that come from a single sentence, which our training skips.

    Returns:
        The number of records written.

    Raises:
        InputError: the corpus does not exist, or a file exists already or cannot be written.
        FieldError: rows are packed.
    """
    corpus = open_corpus(config.data.corpus_dir)
    dataset = PretrainingDataset(
        corpus, config.data, seed=config.seed, global_batch_size=_ROWS_PER_BATCH
    )
    if dataset.max_pairs_per_row > 1:
        raise FieldError("data.packing", "unpacked: a record holds one pair", config.data.packing)
    vocabulary = load_vocabulary(corpus, config.data.word_start_rule)
    with dataset.batches(start_step=0) as batches:
        rows = take_rows(batches, num_epochs * dataset.rows_per_epoch)
        return write_records(rows, paths, vocabulary=vocabulary)


def take_rows(
    batches: Iterator[dict[str, np.ndarray]], num_rows: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the first rows of the batches; the last batch may be shorter."""
    while num_rows > 0:
        batch = {name: array[:num_rows] for name, array in next(batches).items()}
        num_rows -= len(batch["input_ids"])
        yield batch


def main() -> ExitCode:
    """Read the flags and write the files."""
    paths = [Path(path) for path in flags.FLAGS.output_file]
    count = export_records(
        read_config_flag(_CONFIG, ExperimentConfig), paths, flags.FLAGS.num_epochs
    )
    print(f"{count:,} records in {len(paths)} files")
    return ExitCode.DONE


if __name__ == "__main__":
    _CONFIG = define_config_flag()
    flags.DEFINE_list("output_file", None, "files to write, separated by commas", required=True)
    flags.DEFINE_integer("num_epochs", 1, "epochs to write", lower_bound=1)
    run(main, ExperimentConfig)
