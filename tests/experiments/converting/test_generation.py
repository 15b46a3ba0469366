"""Converting models with a decoder: workdirs to transformers and back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from tiny_decoders import TIED, draw_sources, draw_talkative_params, make_decoder
from tiny_models import assert_same

from albert_jax import GenerationOptions, generate, read_generation_options, read_pretrained
from albert_jax.interop.names import WeightsError
from albert_jax.pretrained import PretrainedWeights
from data_pipeline import AlbertTokenizer
from data_pipeline.tokenizers.targets import load_target_tokenizer, train_target_tokenizer
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer
from experiments.converting import (
    Format,
    GenerationFiles,
    convert,
    format_model_card,
    read_generation_files,
    read_provenance,
)

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "and", ",", "3")
TOKENIZER = AlbertTokenizer(WordPieceTokenizer(WORDS))
OPTIONS = GenerationOptions(
    max_new_tokens=12, min_new_tokens=3, num_beams=3, length_penalty=0.5, no_repeat_ngram_size=2
)
TARGETS = ["die Katze", "sitzt da", "und"] * 3
SHARED: dict[str, Any] = {"parameter_sharing": "ffn"}


def make_stored(**changes: Any) -> PretrainedWeights:
    model = make_decoder(**changes)
    params, architecture = draw_talkative_params(model), type(model).__name__
    return PretrainedWeights(model.config, None, params, architecture, 7, model.decoder_config)


def copy(source: Path, to: Format, output: Path) -> PretrainedWeights:
    stored = read_pretrained(source)
    tokenizer = AlbertTokenizer.from_pretrained(source)
    card = format_model_card("copy", stored, tokenizer, read_provenance(source, stored.step), to)
    convert(stored, tokenizer, to, output, card=card, generation=read_generation_files(source))
    return stored


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    target = tmp_path / "target_tokenizer"
    train_target_tokenizer(TARGETS, 273).save(target)
    files = GenerationFiles(OPTIONS, epath.Path(target))
    convert(make_stored(**SHARED), TOKENIZER, Format.ORBAX, tmp_path / "run", generation=files)
    return tmp_path / "run"


def test_a_model_goes_to_transformers_and_back(workdir: Path, tmp_path: Path) -> None:
    stored = copy(workdir, Format.HUGGINGFACE, tmp_path / "there")
    copy(tmp_path / "there", Format.ORBAX, tmp_path / "back")
    expected = make_stored(**SHARED)
    for found in (stored, read_pretrained(tmp_path / "back")):
        assert_same(found.params, expected.params)
        assert (found.config, found.decoder) == (expected.config, expected.decoder)
    for place in (workdir, tmp_path / "there", tmp_path / "back"):
        assert read_generation_options(place) == OPTIONS
        targets = load_target_tokenizer(place / "target_tokenizer")
        assert targets.fingerprint == train_target_tokenizer(TARGETS, 273).fingerprint
        assert AlbertTokenizer.from_pretrained(place).vocab_size == len(WORDS)
    for line in (
        "| decoder layers | 2, parameters shared: ffn |",
        'model = EncoderDecoderModel.from_pretrained("copy")',
        "from albert_jax import AlbertForConditionalGeneration, generate, read_generation_options",
        "- A text that it writes has at most 40 tokens.",
    ):
        assert line in (tmp_path / "there/README.md").read_text().splitlines(), line


def test_a_tied_decoder_stays_in_workdirs(tmp_path: Path) -> None:
    tied = make_stored(**TIED)
    convert(tied, None, Format.ORBAX, tmp_path / "run")
    again = read_pretrained(tmp_path / "run")
    assert_same(again.params, tied.params)
    for to, message in (
        (Format.HUGGINGFACE, "no decoder with tie_to_encoder: a workdir alone holds such a model"),
        (Format.TENSORFLOW, "only the formats huggingface and orbax hold AlbertForConditionalGen"),
        (Format.ONNX, "only the formats huggingface and orbax hold AlbertForConditionalGeneration"),
    ):
        with pytest.raises(WeightsError, match=message):
            convert(again, None, to, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.interop
def test_transformers_generates_the_same_from_a_workdir(workdir: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoTokenizer, EncoderDecoderModel

    stored = copy(workdir, Format.HUGGINGFACE, tmp_path / "there")
    path = tmp_path / "there"
    theirs, loading = EncoderDecoderModel.from_pretrained(path, output_loading_info=True)
    assert not any(loading.values()), loading
    sources = draw_sources(4)
    found = theirs.eval().generate(**{n: torch.tensor(x) for n, x in sources.items()}).numpy()
    model = make_decoder(**SHARED)
    ours = np.asarray(generate(model, stored.params, sources, OPTIONS).sequences)
    np.testing.assert_array_equal(found, ours[:, : found.shape[1]])
    assert not ours[:, found.shape[1] :].any() and found.shape[1] > 4
    inputs = AutoTokenizer.from_pretrained(path)(["the cat sat"], return_tensors="pt")
    np.testing.assert_array_equal(inputs["input_ids"], TOKENIZER("the cat sat")["input_ids"])
    assert theirs.generate(**inputs).shape[1] > 4  # as in the card
    of_targets = AutoTokenizer.from_pretrained(path / "target_tokenizer")
    assert of_targets.decode(of_targets("die Katze")["input_ids"]) == "die Katze"
