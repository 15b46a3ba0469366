r"""Record what any masked language model of transformers predicts for the batches of a run.

    python -m experiments.distillation --config=experiments/configs/albert_base.py \
        --config.data.corpus_dir=corpora/wiki_en --config.distillation.teacher=teachers/bert \
        --output_dir=recordings/bert
    python -m experiments.pretrain --config=experiments/configs/albert_base.py \
        --config.data.corpus_dir=corpora/wiki_en --config.distillation.teacher=recordings/bert \
        --workdir=runs/distilled

The same command resumes a stopped recording. An ALBERT needs no recording: name it in the second
command, and it predicts while the run trains.
"""

from pathlib import Path

import jax
from absl import flags

from albert_jax.devices.mesh import make_mesh
from albert_jax.settings import FieldError
from experiments.cli.command import run
from experiments.cli.config_flag import define_config_flag, read_given_config
from experiments.cli.exit_codes import ExitCode
from experiments.distillation.compatibility import check_rows, check_teacher_vocabulary
from experiments.distillation.recorder import record
from experiments.distillation.transformers_teacher import TransformersTeacher
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import Curriculum, phases_of
from experiments.run.workdir import open_pretraining_corpus, with_corpus_vocabulary


def record_teacher(config: ExperimentConfig, directory: Path, device: str | None = None) -> None:
    """Record a teacher's predictions for all steps of an experiment.

    Raises:
        InputError: teacher, corpus and directory do not fit together.
        FieldError: no teacher is named.
    """
    source = config.distillation.teacher
    if not source:
        raise FieldError("distillation.teacher", "the directory of a model of transformers", source)
    corpus = open_pretraining_corpus(config)
    teacher = TransformersTeacher(source, config.distillation, device)
    check_teacher_vocabulary(source, teacher.vocab_size, corpus)
    lengths = [phase.data.max_seq_length for phase in phases_of(config)]
    check_rows(teacher.longest_row, teacher.type_vocab_size, lengths, source)
    batches = Curriculum(corpus, config, make_mesh(devices=jax.local_devices()[:1]))
    record(config, batches, teacher, directory)


def main() -> ExitCode:
    """Read the flags and record."""
    jax.config.update("jax_platforms", "cpu")  # otherwise JAX reserves the GPU's memory
    given = with_corpus_vocabulary(read_given_config(_CONFIG, ExperimentConfig))
    record_teacher(given.config, Path(flags.FLAGS.output_dir), flags.FLAGS.device)
    return ExitCode.DONE


if __name__ == "__main__":
    _CONFIG = define_config_flag()
    flags.DEFINE_string("output_dir", None, "the recording, new or to be completed", required=True)
    flags.DEFINE_string("device", None, "torch device, such as cuda:1; none: a GPU if there is one")
    run(main, ExperimentConfig)
