"""Weights of transformers: brought in, used, fine-tuned, and taken back as they were."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journey import ROOT, Journey

TEXT = "The [MASK] of a batch."


def save_random_model(directory: Path, vocabulary: Path) -> dict[str, np.ndarray]:
    """Let transformers save a model, and return its tensors."""
    import torch
    import transformers

    (directory / "vocabulary").mkdir(parents=True)
    shutil.copy(vocabulary, directory / "vocabulary" / "spiece.model")
    tokenizer = transformers.AlbertTokenizer.from_pretrained(directory / "vocabulary")
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.AlbertConfig(
        vocab_size=len(tokenizer),
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    model = transformers.AlbertForMaskedLM(config)
    model.save_pretrained(directory)
    return tensors(model)


def tensors(model: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def fill_mask(model: Any, tokenizer: Any) -> dict[str, float]:
    """The probabilities of all tokens for the mask of `TEXT`."""
    import torch

    inputs = tokenizer(TEXT, return_tensors="pt")
    with torch.no_grad():
        logits = model.eval()(**inputs).logits[0]
    place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    probabilities = torch.softmax(logits[place], -1).tolist()
    return dict(
        zip(tokenizer.convert_ids_to_tokens(range(len(tokenizer))), probabilities, strict=True)
    )


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.minutes(5)
def test_transformers_there_and_back(journey: Journey) -> None:
    journey.run(
        f"python -m data_pipeline.build_corpus --input='{ROOT}/docs/*.md' --format=text "
        "--vocab_size=600 --held_out=0.2 --output_dir=corpus"
    )
    (vocabulary,) = (journey.here / "corpus/tokenizer").glob("*.model")
    theirs = save_random_model(journey.here / "theirs", vocabulary)

    from transformers import (
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        pipeline,
    )

    expected = fill_mask(
        AutoModelForMaskedLM.from_pretrained(journey.here / "theirs"),
        AutoTokenizer.from_pretrained(journey.here / "theirs"),
    )
    for model in ("theirs", "ours"):
        if model == "ours":
            journey.run("python -m experiments.convert --from=theirs --to=orbax --output=ours")
        said = journey.run(
            f"python -m experiments.predict --task=fill-mask --model={model} --text='{TEXT}' --json"
        )
        for candidate in json.loads(said.splitlines()[-1])["masks"][0]:
            assert candidate["probability"] == pytest.approx(expected[candidate["piece"]], rel=1e-4)

    journey.run("python -m experiments.convert --from=ours --to=huggingface --output=back")
    back = AutoModelForMaskedLM.from_pretrained(journey.here / "back")
    assert theirs.keys() == tensors(back).keys()
    for name, tensor in tensors(back).items():
        np.testing.assert_array_equal(tensor, theirs[name], err_msg=name)

    rows = [[f"{word} of a step", word] for word in ("loss", "rate") for _ in range(40)]
    for split in ("train", "dev"):
        with (journey.here / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["text", "label"], *rows])
    journey.run(
        "python -m experiments.finetune --config=finetune/text --config.run.init_from=theirs "
        "--config.data.train_file=train.csv --config.data.dev_file=dev.csv "
        "--config.data.max_seq_length=32 --config.optimizer.learning_rate=1e-3 --workdir=classifier"
    )
    said = journey.run(
        "python -m experiments.predict --task=classify --model=classifier --json "
        "--text='the loss of a step'"
    )
    ours = json.loads(said.splitlines()[-1])
    journey.run("python -m experiments.convert --from=classifier --to=huggingface --output=given")
    given = journey.here / "given"
    classify = pipeline(
        "text-classification",
        AutoModelForSequenceClassification.from_pretrained(given),
        tokenizer=AutoTokenizer.from_pretrained(given),
    )
    (answer,) = classify("the loss of a step")
    assert answer["label"] == ours["label"] == "loss"
    assert answer["score"] == pytest.approx(ours["probabilities"]["loss"], rel=1e-4)
