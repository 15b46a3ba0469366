"""Tasks in which a decoder writes texts: translation (BLEU) and summarization (ROUGE)."""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.config import AlbertConfig
from albert_jax.decoder.config import Gpt2Config
from albert_jax.devices.flops import seq2seq_flops_per_row
from albert_jax.durable_files import write_atomically
from albert_jax.generation.config import GenerationOptions
from albert_jax.generation.encoder_decoder import AlbertForConditionalGeneration
from albert_jax.generation.objective import predict_texts, seq2seq_objective
from albert_jax.generation.stored_options import options_bytes
from albert_jax.interop.encoder_decoder import DecoderWeights
from albert_jax.interop.workdir import (
    DECODER_FILE,
    OPTIONS_FILE,
    TARGET_TOKENIZER,
    decoder_config_bytes,
)
from albert_jax.settings import FieldError
from albert_jax.tasks.batches import Seq2SeqBatch
from data_pipeline.errors import InputError
from data_pipeline.generation.encoded_pairs import PairShape
from data_pipeline.generation.encoding import PairEncoder
from data_pipeline.generation.examples import TextPair
from data_pipeline.generation.metrics import Metric, TextScores, bleu, rouge
from data_pipeline.generation.pair_files import PairColumns, read_pair_files
from data_pipeline.generation.tfds_pairs import read_tfds_pairs
from data_pipeline.tokenizers.albert import AlbertTokenizer
from data_pipeline.tokenizers.targets.sentencepiece import train_target_tokenizer
from data_pipeline.tokenizers.targets.target_tokenizer import TargetTokenizer
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task import FinetuningTask, Outputs, Scores, TaskKind, required_files
from experiments.tasks.task_settings import DataSource, TaskName

_METRICS: Mapping[TaskName, tuple[Metric, tuple[str, ...]]] = {
    TaskName.TRANSLATION: (bleu, ("bleu", "bleu_lowercase")),
    TaskName.SUMMARIZATION: (rouge, ("rouge_l", "rouge_1", "rouge_2")),
}
_SAMPLES = 8  # of each split, in the report
_SAMPLE_LETTERS = 400


class DecoderStart(NamedTuple):
    """What is known about a decoder before the training examples are read.

    Attributes:
        tokenizer: the vocabulary of targets; None if it is yet to be trained on them.
        config: the decoder's sizes; None takes those of the settings.
        weights: pre-trained weights, if there are any and the run is new.
    """

    tokenizer: TargetTokenizer | None = None
    config: Gpt2Config | None = None
    weights: DecoderWeights | None = None


def _open(
    config: FinetuneConfig,
    model: AlbertConfig,
    tokenizer: AlbertTokenizer,
    *,
    decoder: DecoderStart,
    **compute: Any,
) -> FinetuningTask:
    splits = read_pairs(config)
    _METRICS[config.task][0]([""], ["a"])  # raises before training if a package is missing
    targets = decoder.tokenizer or train_target_tokenizer(
        [pair.target or "" for pair in splits["train"]], config.targets.vocab_size
    )
    decoder_config = decoder.config or complete_decoder(
        config, model, targets.vocab_size, (targets.bos_id, targets.eos_id, targets.pad_id)
    )
    network = AlbertForConditionalGeneration(model, decoder_config, **compute)
    final, length = config.decoding, config.targets.max_length
    with _flags_of("decoding"):
        final.check(decoder_config)
    with _flags_of("targets"):
        decoder_config.check_length("max_length", length)
    greedy = dataclasses.replace(final, num_beams=1, length_penalty=1.0)
    encode = PairEncoder(
        tokenizer,
        targets,
        splits.pop("train"),
        max_source=config.data.max_seq_length,
        max_target=length,
        truncate=config.targets.truncate,
        positions=decoder_config.n_positions,
    )
    train = encode.training
    references = {
        name: pairs for name, pairs in splits.items() if all(p.target is not None for p in pairs)
    }
    encoded = {name: encode(pairs) for name, pairs in splits.items()}
    few = references["dev"][: config.targets.evaluation_examples]
    smoothing = config.targets.label_smoothing
    writer = _Writer(config.task, targets, splits)
    return FinetuningTask(
        train=train,
        labeled={name: encoded[name] for name in references},
        unlabeled={name: pairs for name, pairs in encoded.items() if name not in references},
        model=network,
        head=None,
        objective=seq2seq_objective(network, label_smoothing=smoothing, options=greedy),
        to_batch=Seq2SeqBatch.from_numpy,
        metrics=_METRICS[config.task][1],
        score=writer.score,
        write=writer.write,
        sampled={"dev": encode(few)},
        final_predict=predict_texts(network, final),
        flops_per_row=functools.partial(_flops, model, decoder_config, train.shape),
        files=_workdir_files(decoder_config, final, targets),
        rate_factors=_rate_factors(config),
    )


def read_pairs(config: FinetuneConfig) -> dict[str, list[TextPair]]:
    """Read the pairs of a run: train, dev, and test if there is one.

    Raises:
        InputError: a file is missing or malformed, or a training or dev target is missing.
    """
    data, targets = config.data, config.targets
    if data.source is DataSource.TFDS:
        if targets.dataset is None:
            raise InputError("--config.targets.dataset is missing: the data set of TFDS")
        features = data.text_column, targets.column
        return {
            ours: read_tfds_pairs(targets.dataset, theirs, *features, data.dir or None)
            for ours, theirs in (("train", "train"), ("dev", "validation"))
        }
    train, dev = required_files(data, "texts to read, one a line, or a .tsv, .csv or .jsonl")
    files = {"train": (train, targets.train_file), "dev": (dev, targets.dev_file)}
    if data.test_file is not None:
        files["test"] = (Path(data.test_file), targets.test_file)
    columns = PairColumns(data.text_column, targets.column, data.id_column)
    return {split: read_pair_files(split, *paths, columns) for split, paths in files.items()}


def complete_decoder(
    config: FinetuneConfig, model: AlbertConfig, vocab_size: int, special_ids: tuple[int, int, int]
) -> Gpt2Config:
    """Return the configuration of a run's new decoder.

    Args:
        config: the run.
        model: the encoder.
        vocab_size: the size of the target vocabulary.
        special_ids: the ids of the tokens that begin, end and pad targets.

    Raises:
        InputError: the sizes do not fit together.
    """
    begin, end, pad = special_ids
    with _flags_of("decoder"):
        return config.decoder.complete(
            model,
            vocab_size=vocab_size,
            longest=max(config.targets.max_length, config.decoding.max_new_tokens),
            bos_token_id=begin,
            eos_token_id=end,
            pad_token_id=pad,
        )


@contextlib.contextmanager
def _flags_of(group: str) -> Iterator[None]:
    """Turn an error about a setting of a group into one about its flag."""
    try:
        yield
    except FieldError as error:
        raise InputError(str(error.within(f"--config.{group}"))) from error


class _Writer:
    """Scorer and writer of the generated texts of splits."""

    def __init__(
        self, task: TaskName, tokenizer: TargetTokenizer, splits: Mapping[str, Sequence[TextPair]]
    ) -> None:
        self._metric, self._tokenizer, self._splits = _METRICS[task][0], tokenizer, splits

    def texts(self, outputs: Outputs) -> list[str]:
        """Return the text of each output."""
        return [self._tokenizer.decode(row["sequences"]) for row in outputs]

    def score(self, split: str, outputs: Outputs) -> Scores:
        """Compute the metrics of a labeled split, or of its first examples."""
        pairs, texts = self._splits[split][: len(outputs)], self.texts(outputs)
        found: TextScores = self._metric(texts, [pair.target or "" for pair in pairs])
        nats = sum(float(row["nats"]) for row in outputs)
        nats /= max(1.0, sum(float(row["tokens"]) for row in outputs))
        samples = [
            tuple(_shorten(text) for text in (pair.source, pair.target or "", text))
            for pair, text in list(zip(pairs, texts, strict=True))[:_SAMPLES]
        ]
        return Scores(
            {**found.metrics, "cross_entropy": nats},
            {},
            samples=(("source", "reference", "written"), samples),
            notes=found.notes,
        )

    def write(self, split: str, outputs: Outputs, directory: Path) -> list[Path]:
        """Write the texts of a split, one a line."""
        path = directory / f"{split}_predictions.txt"
        lines = (" ".join(text.split("\n")) for text in self.texts(outputs))
        write_atomically(path, "".join(f"{line}\n" for line in lines))
        return [path]


def _shorten(text: str) -> str:
    return text if len(text) <= _SAMPLE_LETTERS else f"{text[:_SAMPLE_LETTERS]} ..."


def _flops(model: AlbertConfig, decoder: Gpt2Config, shape: PairShape, length: int) -> float:
    source, target = shape.source_length(length), shape.target_length(length)
    return seq2seq_flops_per_row(model, decoder, source=source, target=target)


def _rate_factors(config: FinetuneConfig) -> dict[str, float]:
    factor, run = config.decoder.rate_factor, config.run
    if factor == 1:
        return {}
    if run.init_from is None:
        raise InputError(
            f"--config.decoder.rate_factor must be 1 without --config.run.init_from, got {factor:g}"
        )
    started = run.init_decoder_from is not None
    fresh = ("decoder/layers/cross_attention/", "enc_to_dec_proj/")
    return dict.fromkeys(fresh if started else ("decoder/", "enc_to_dec_proj/"), factor)


def _workdir_files(
    decoder: Gpt2Config, options: GenerationOptions, tokenizer: TargetTokenizer
) -> dict[str, bytes]:
    files = {
        DECODER_FILE: decoder_config_bytes(decoder),
        OPTIONS_FILE: options_bytes(options),
    }
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / TARGET_TOKENIZER
        tokenizer.save(place)
        for file in sorted(place.iterdir()):
            files[f"{TARGET_TOKENIZER}/{file.name}"] = file.read_bytes()
    return files


GENERATION = TaskKind(
    models=(AlbertForConditionalGeneration,),
    batch=Seq2SeqBatch,
    objective=seq2seq_objective,
    open=_open,
    predictions={},
)
