r"""Convert a model to another format, with its tokenizer if it has one.

    python -m experiments.convert --from=runs/base --to=huggingface --output=albert-mine

`huggingface` is read by transformers, `tensorflow` by the released code; `orbax` is a workdir of
this project. The source is any path that `from_pretrained` reads.
"""

from enum import StrEnum
from pathlib import Path

import jax
from absl import flags
from etils import epath

from albert_jax.durable_files import new_directory
from albert_jax.interop.names import WeightsError
from albert_jax.interop.saving import save_huggingface
from albert_jax.interop.stored_weights import flatten
from albert_jax.interop.tensorflow_checkpoint import write_tensorflow
from albert_jax.interop.workdir import ALBERT_CONFIG_FILE, CHECKPOINTS, HEAD_FILE, write_head
from albert_jax.pretrained import PretrainedWeights, directory_of, read_pretrained
from albert_jax.training.checkpoint import Checkpoints
from data_pipeline.terminal import suggest
from data_pipeline.tokenizers.albert import AlbertTokenizer
from data_pipeline.tokenizers.pretrained import MissingTokenizerError
from data_pipeline.tokenizers.sentencepiece import SentencePieceTokenizer
from data_pipeline.tokenizers.sentencepiece_model import parse_model
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode

RELEASED_VOCABULARY = "30k-clean"


class Format(StrEnum):
    """Formats that can be written."""

    HUGGINGFACE = "huggingface"
    TENSORFLOW = "tensorflow"
    ORBAX = "orbax"


def convert(
    stored: PretrainedWeights, tokenizer: AlbertTokenizer | None, to: Format, output: Path
) -> None:
    """Write all of a model, heads included, into a new directory.

    Args:
        stored: the model.
        tokenizer: None to write the weights alone.
        to: the format.
        output: the directory.

    Raises:
        WeightsError: the directory exists, the format cannot hold the model or its added tokens, or
            the vocabulary is not the model's.
    """
    if tokenizer is not None and tokenizer.vocab_size != stored.config.vocab_size:
        raise WeightsError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model has "
            f"{stored.config.vocab_size}"
        )
    if to is Format.HUGGINGFACE:
        save_huggingface(
            output,
            flatten(stored.params),
            stored.config,
            stored.head,
            architecture=architecture_of(stored),
            tokenizer=tokenizer,
        )
        return
    write = {Format.TENSORFLOW: _write_released, Format.ORBAX: _write_workdir}[to]
    with new_directory(output, error=WeightsError) as directory:
        write(directory, stored, tokenizer)


def architecture_of(stored: PretrainedWeights) -> str:
    """Return the name of the class that has exactly these parameters."""
    heads = stored.params.keys() - {"albert"}
    if stored.architecture is not None:
        return stored.architecture
    if "classifier" in heads:
        pooled = "pooler" in stored.params["albert"]
        return f"AlbertFor{'Sequence' if pooled else 'Token'}Classification"
    if "qa_outputs" in heads:
        return "AlbertForQuestionAnswering"
    if "predictions" in heads:
        return "AlbertForPreTraining" if "sop_classifier" in heads else "AlbertForMaskedLM"
    return "AlbertModel"


def _write_released(
    directory: Path, stored: PretrainedWeights, tokenizer: AlbertTokenizer | None
) -> None:
    if tokenizer is not None and (added := tokenizer.tokenizer.added_tokens.new):
        raise WeightsError(
            f"the tensorflow format has no place for added tokens: {', '.join(added)}"
        )
    write_tensorflow(directory, flatten(stored.params), stored.config, step=stored.step or 0)
    if tokenizer is None:
        return
    vocabulary = tokenizer.tokenizer.vocabulary_bytes()
    if not isinstance(tokenizer.tokenizer, SentencePieceTokenizer):
        (directory / "vocab.txt").write_bytes(vocabulary)
        return
    (directory / f"{RELEASED_VOCABULARY}.model").write_bytes(vocabulary)
    lines = [f"{piece.piece}\t{piece.score:g}\n" for piece in parse_model(vocabulary).pieces]
    (directory / f"{RELEASED_VOCABULARY}.vocab").write_text("".join(lines), encoding="utf-8")


def _write_workdir(
    directory: Path, stored: PretrainedWeights, tokenizer: AlbertTokenizer | None
) -> None:
    stored.config.to_json_file(directory / ALBERT_CONFIG_FILE)
    if stored.head is not None:
        write_head(epath.Path(directory / HEAD_FILE), architecture_of(stored), stored.head)
    if tokenizer is not None:
        tokenizer.tokenizer.save(directory / TOKENIZER_DIRECTORY)
    with Checkpoints(
        directory / CHECKPOINTS, keep=1, documents={"albert_config": stored.config.to_dict()}
    ) as checkpoints:
        checkpoints.save(stored.step or 0, {"params": stored.params}, finite=True)


def list_losses(
    stored: PretrainedWeights, tokenizer: AlbertTokenizer | None, to: Format
) -> list[str]:
    """List what the format cannot hold, and the reader of the output has to know."""
    if to is not Format.TENSORFLOW:
        return []
    losses = []
    if stored.head is not None:
        losses.append(f"the labels ({', '.join(stored.head.labels)})")
    if tokenizer is None:
        return losses
    if not tokenizer.tokenizer.lower_case:
        losses.append("that text is not lowercased (--do_lower_case=false)")
    if tokenizer.tokenizer.keep_accents:
        losses.append("that accents are kept")
    if added := tokenizer.tokenizer.added_tokens.tokens:
        losses.append(f"that these stay whole: {', '.join(token.content for token in added)}")
    return losses


def find_tokenizer(given: str | None, source: str) -> AlbertTokenizer | None:
    """Read the tokenizer that is given, or that beside the source; None if that has none.

    Raises:
        InputError: the tokenizer cannot be read, or a given one does not exist.
    """
    if given is not None:
        return AlbertTokenizer.from_pretrained(given)
    try:
        return AlbertTokenizer.from_pretrained(str(directory_of(source)))
    except MissingTokenizerError:
        return None


def main() -> ExitCode:
    """Read the flags and convert."""
    source, to = flags.FLAGS["from"].value, flags.FLAGS.to
    stored = read_pretrained(source, step=flags.FLAGS.step)
    tokenizer = find_tokenizer(flags.FLAGS.tokenizer, str(source))
    convert(stored, tokenizer, to, Path(flags.FLAGS.output))
    count = sum(leaf.size for leaf in jax.tree.leaves(stored.params))
    config = stored.config
    print(
        f"{flags.FLAGS.output}: {architecture_of(stored)}, {count:,} parameters, "
        f"{config.num_hidden_layers} layers of {config.num_attention_heads} heads, "
        f"{config.hidden_act}"
    )
    if tokenizer is None:
        print(f"weights alone: there is no tokenizer in {source}; --tokenizer names one")
    for loss in list_losses(stored, tokenizer, to):
        print(f"the {to} format cannot hold {loss}")
    if architecture_of(stored) == "AlbertForPreTraining" and tokenizer is not None:
        text = "--text=Paris is the [MASK] of France."
        suggest("experiments.predict", "--task=fill-mask", f"--model={flags.FLAGS.output}", text)
    return ExitCode.DONE


if __name__ == "__main__":
    flags.DEFINE_string("from", None, "a path that `from_pretrained` reads", required=True)
    flags.DEFINE_enum_class("to", None, Format, "the format to write", required=True)
    flags.DEFINE_string("output", None, "a new directory", required=True)
    flags.DEFINE_integer("step", None, "which checkpoint of a workdir; by default the best")
    flags.DEFINE_string("tokenizer", None, "a tokenizer, where the source has none")
    run(main)
