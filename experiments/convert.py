r"""Convert a model to another format, with its tokenizer if it has one.

    python -m experiments.convert --from=runs/base --to=huggingface --output=albert-mine

Formats: `huggingface` is for transformers, `tensorflow` for the released code, and
`sentence-transformers` for the package of that name, with the mean over the tokens unless the model
was trained with another pooling. `orbax` is a workdir of this project. `onnx` and `stablehlo` have
inference only, for any batch and length.

The source is any path that `from_pretrained` reads. `--average_experts` replaces experts by their
mean, which other formats can hold, and prints how far the outputs are from those of the source.
`--push_to_hub=user/model` uploads what was written, to a private model unless `--private=false`.
"""

from pathlib import Path

import jax
from absl import flags

from albert_jax.interop.hub import check_upload, upload
from albert_jax.pretrained import directory_of, read_pretrained
from albert_jax.tasks.embedding_files import read_vector_form
from data_pipeline.tokenizers.albert import AlbertTokenizer
from data_pipeline.tokenizers.pretrained import MissingTokenizerError
from experiments.cli.command import run
from experiments.cli.exit_codes import ExitCode
from experiments.converting.experts import average_stored_experts, format_difference
from experiments.converting.formats import (
    Format,
    architecture_of,
    convert,
    list_losses,
    without_detection,
)
from experiments.converting.generation_files import read_generation_files
from experiments.converting.model_card import format_model_card
from experiments.converting.provenance import read_provenance
from experiments.prediction.examples import suggest_fill_mask


def find_tokenizer(given: str | None, source: str) -> AlbertTokenizer | None:
    """Read the given tokenizer, or else the one beside the source; None if there is none.

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
    source, to, output = flags.FLAGS["from"].value, Format(flags.FLAGS.to), Path(flags.FLAGS.output)
    name = flags.FLAGS.push_to_hub
    if name is not None:
        check_upload(name)
    read = read_pretrained(source, step=flags.FLAGS.step, average=flags.FLAGS.average)
    difference = None
    if flags.FLAGS.average_experts:
        read, difference = average_stored_experts(read)
    stored = without_detection(read, to)
    tokenizer = find_tokenizer(flags.FLAGS.tokenizer, str(source))
    provenance = read_provenance(source, stored.step)
    form = read_vector_form(directory_of(source))
    card = format_model_card(name or output.name, stored, tokenizer, provenance, to, form)
    generation = None if stored.decoder is None else read_generation_files(source)
    convert(stored, tokenizer, to, output, card=card, generation=generation, form=form)
    count = sum(leaf.size for leaf in jax.tree.leaves(stored.params))
    config = stored.config
    print(
        f"{output}: {architecture_of(stored)}, {count:,} parameters, "
        f"{config.num_hidden_layers} layers of {config.num_attention_heads} heads, "
        f"{config.hidden_act}"
    )
    if difference is not None:
        print(format_difference(difference))
    if tokenizer is None:
        print(f"weights alone: there is no tokenizer in {source}; --tokenizer names one")
    for loss in list_losses(read, tokenizer, to, form):
        print(f"the {to} format cannot hold {loss}")
    if name is not None:
        print(f"uploading to {name} ...", flush=True)
        private = flags.FLAGS.private
        kept = "" if upload(output, name, private=private) else "; its README.md was left as it was"
        print(f"uploaded to {name}{', which is private' if private else ''}{kept}")
    readable = to in (Format.HUGGINGFACE, Format.TENSORFLOW, Format.ORBAX)
    if readable and architecture_of(stored) == "AlbertForPreTraining" and tokenizer is not None:
        suggest_fill_mask(flags.FLAGS.output)
    return ExitCode.DONE


if __name__ == "__main__":
    flags.DEFINE_string("from", None, "a path that `from_pretrained` reads", required=True)
    flags.DEFINE_enum("to", None, list(Format), "the format to write", required=True)
    flags.DEFINE_string("output", None, "a new directory", required=True)
    flags.DEFINE_integer("step", None, "which checkpoint of a workdir; by default the best")
    flags.DEFINE_boolean("average", True, "the mean of the parameters, if the run kept one")
    flags.DEFINE_boolean("average_experts", False, "replace the experts of a model by their mean")
    flags.DEFINE_string("tokenizer", None, "a tokenizer, where the source has none")
    flags.DEFINE_string("push_to_hub", None, "user/model on the Hugging Face Hub, to upload to")
    flags.DEFINE_boolean("private", True, "upload to a private model; false: to one that all see")
    run(main)
