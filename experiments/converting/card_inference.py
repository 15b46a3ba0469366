"""The section of a model card on running an ONNX or StableHLO file without this project."""

from collections.abc import Iterator

from albert_jax.exporting.inference import CHOICES, INDICES, SIGNATURE_FILE, ExportedModel
from albert_jax.exporting.onnx_model import ONNX_FILE
from albert_jax.exporting.stablehlo import STABLEHLO_FILE
from albert_jax.pretrained import PretrainedWeights
from experiments.converting.formats import Format, prepare_stored
from experiments.finetuning.report_format import format_table

INTEGERS = {Format.ONNX: "int64", Format.STABLEHLO: "int32"}  # of inputs and indices

_TEXTS = {
    "AlbertForQuestionAnswering": '("When?", "It was in 1066.")',
    "AlbertForConditionalSpan": '("When?", "It was in 1066.")',
    "AlbertForMultipleChoice": '("It was in 1066.", "When? In 1066."), '
    '("It was in 1066.", "When? Today.")',
}
_TEXT = '"This is a text.", "And another one."'
# In a row `[CLS] question [SEP] context [SEP]`, an answer is in the context; [CLS] means none.
_P_MASK = """special = np.array([one.special_tokens_mask for one in rows], np.{integers})
outside = (inputs["token_type_ids"] == 0) | (special == 1)
outside[:, 0] = False
inputs["p_mask"] = outside.astype(np.{integers})"""


def format_inference(
    stored: PretrainedWeights, to: Format, *, has_tokenizer: bool
) -> Iterator[str]:
    """Yield the section of a card on running the file, with a table of its outputs.

    Args:
        stored: the model.
        to: the format, one of those in `INTEGERS`.
        has_tokenizer: False to run it on made-up numbers.

    Raises:
        WeightsError: the model cannot be exported.
    """
    exported = prepare_stored(stored)
    package = "onnxruntime" if to is Format.ONNX else "jax"
    packages = f"numpy {package}{' tokenizers' if has_tokenizer else ''}"
    yield from ("## Use", "")
    yield f"In the directory of the file, with `pip install {packages}`:"
    yield from ("", "```python", *_format_program(exported, to, has_tokenizer), "```", "")
    yield from format_table(("output", "type", "shape"), _describe_outputs(exported, to))
    yield f"`{SIGNATURE_FILE}` has the same for programs. Batch and length are any."
    yield ""


def _format_program(exported: ExportedModel, to: Format, has_tokenizer: bool) -> Iterator[str]:
    reader = "from onnxruntime import InferenceSession"
    if to is Format.STABLEHLO:
        reader = "from jax import export"
    imports = ["import numpy as np", reader]
    imports += ["from tokenizers import Tokenizer"] if has_tokenizer else []
    yield from (*imports, "")
    yield from (_tokenize if has_tokenizer else _make_numbers)(exported, INTEGERS[to])
    last = next(name for name in reversed(exported.output_shapes()))
    if to is Format.ONNX:
        yield f'session = InferenceSession("{ONNX_FILE}")'
        yield "names = [output.name for output in session.get_outputs()]"
        yield "outputs = dict(zip(names, session.run(None, inputs)))"
    else:
        yield f'with open("{STABLEHLO_FILE}", "rb") as file:'
        yield "    model = export.deserialize(bytearray(file.read()))"
        yield "outputs = model.call(*inputs.values())"
    yield f'print(outputs["{last}"])'


def _tokenize(exported: ExportedModel, integers: str) -> Iterator[str]:
    yield 'tokenizer = Tokenizer.from_file("tokenizer.json")'
    yield "tokenizer.enable_padding()"
    if (longest := exported.config.longest_row) is not None:
        yield f"tokenizer.enable_truncation({longest})"
    yield f"rows = tokenizer.encode_batch([{_TEXTS.get(exported.architecture, _TEXT)}])"
    shapes = exported.input_shapes()
    axis = "[None]" if CHOICES in shapes["input_ids"] else ""  # one example of several choices
    yield "inputs = {"
    for name, field in (
        ("input_ids", "ids"),
        ("attention_mask", "attention_mask"),
        ("token_type_ids", "type_ids"),
    ):
        yield f'    "{name}": np.array([one.{field} for one in rows], np.{integers}){axis},'
    yield "}"
    yield from ([_P_MASK.format(integers=integers)] if "p_mask" in shapes else [])


def _make_numbers(exported: ExportedModel, integers: str) -> Iterator[str]:
    """Yield code for two rows of a few tokens, of which only the shape matters."""
    longest, shapes = exported.config.longest_row, exported.input_shapes()
    length = 8 if longest is None else min(8, longest)
    shape = [{CHOICES: 3, "batch": 2}.get(axis, length) for axis in shapes["input_ids"]]
    yield "inputs = {"
    for name in shapes:
        made = "ones" if name in ("input_ids", "attention_mask") else "zeros"
        yield f'    "{name}": np.{made}({shape}, np.{integers}),'
    yield "}"


def _describe_outputs(exported: ExportedModel, to: Format) -> Iterator[tuple[str, str, str]]:
    for name, shape in exported.output_shapes().items():
        kind = INTEGERS[to] if name in INDICES else "float32"
        yield f"`{name}`", kind, ", ".join(map(str, shape))
