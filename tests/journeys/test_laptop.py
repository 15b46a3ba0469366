"""A student's laptop: notes and records of one's own, to a model that fills in their words."""

import json

import numpy as np
import pytest
from journey import ROOT, Journey

from data_pipeline.sources.docstrings import read_documentation
from data_pipeline.sources.text_files import InputFile

BUILD = (
    "python -m data_pipeline.build_corpus --source='notes:2:text:notes/*.txt' "
    "--source=records:1:jsonl:records.jsonl --text_column=body --vocab_size=1500 --held_out=0.1 "
    "--output_dir=corpus"
)
PRETRAIN = (
    "python -m experiments.pretrain --config=albert_tiny_cpu --config.data.corpus_dir=corpus "
    "--config.model.vocab_size=1500 --config.optimizer.num_train_steps=150 "
    "--config.optimizer.num_warmup_steps=15 --config.run.evaluate_every=150 "
    "--config.run.checkpoint_every=50 --workdir=run"
)


def write_texts(journey: Journey) -> None:
    """Write this project's own pages and docstrings."""
    (journey.here / "notes").mkdir()
    for page in ROOT.glob("docs/*.md"):
        (journey.here / "notes" / f"{page.stem}.txt").write_text(page.read_text())
    with (journey.here / "records.jsonl").open("w") as file:
        for path in sorted(
            path
            for name in ("albert_jax", "data_pipeline", "experiments")
            for path in (ROOT / name).rglob("*.py")
        ):
            for number, document in enumerate(read_documentation(InputFile(str(path), 1, ""))):
                record = {"id": f"{path.stem}-{number}", "body": "\n".join(document)}
                file.write(json.dumps(record) + "\n")


@pytest.mark.slow
@pytest.mark.minutes(10)
def test_own_text_on_a_laptop(journey: Journey) -> None:
    write_texts(journey)
    assert "documents" in journey.run(BUILD)
    journey.run(PRETRAIN)
    assert "at step 150 of 150" in journey.run(PRETRAIN)  # resumed: nothing is left to do
    found = json.loads(
        journey.run("python -m experiments.evaluate --workdir=run --json").splitlines()[-1]
    )
    assert found["masked_lm_accuracy"] > found["most_frequent_accuracy"]
    said = journey.run(
        "python -m experiments.predict --task=fill-mask --model=run "
        "--text='The number of [MASK] in a batch.' --text='An error if there is [MASK] file.'"
    )
    assert said.count("[MASK] 1") == 2
    (journey.here / "texts.txt").write_text("A batch has rows.\nA step has a loss.\n")
    journey.run(
        "python -m experiments.predict --task=encode --model=run --input=texts.txt "
        "--pooling=mean --output=vectors.npy"
    )
    assert np.load(journey.here / "vectors.npy").shape == (2, 128)
