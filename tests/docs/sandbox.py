"""A directory with the files that the documents name, all of them tiny, to run commands in."""

import gzip
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow
import pyarrow.ipc
from command_server import Request
from compilation import XLA_FLAGS
from tiny_tasks import write_questions, write_sst2, write_texts

ROOT = Path(__file__).parents[2]
VOCABULARY = 120
CORPUS, RUN = "corpora/wiki_en", "runs/base"
_WORDS = re.findall("[a-z]+", (ROOT / "LICENSE").read_text().lower())

# Flags that make a command small. They are appended to it, since later flags win.
_TINY_MODEL = (
    f"--config.model.vocab_size={VOCABULARY}",
    *(f"--config.model.{name}" for name in ("embedding_size=8", "hidden_size=16")),
    *(f"--config.model.{name}" for name in ("num_attention_heads=2", "intermediate_size=32")),
    *(f"--config.model.{name}" for name in ("num_hidden_layers=4", "max_position_embeddings=512")),
)
_SHORT_RUN = (
    *(f"--config.run.{name}=2" for name in ("log_every", "evaluate_every", "checkpoint_every")),
    "--config.run.evaluation_batch_size=8",
    *("--config.optimizer.num_train_steps=2", "--config.optimizer.num_warmup_steps=1"),
    *("--config.global_batch_size=4", "--config.data.max_seq_length=32"),
)
_PRETRAINING = (
    *(*_TINY_MODEL, *_SHORT_RUN, "--config.data.max_predictions_per_seq=5"),
    "--config.run.evaluation_pairs=8",
)
_FINETUNING = (
    *(*_SHORT_RUN, "--config.data.num_lengths=1", "--config.data.num_epochs=none"),
    *("--config.targets.vocab_size=320", "--config.decoding.max_new_tokens=8"),
)
# Files that commands make when a document names them.
MADE = {
    CORPUS: "data_pipeline.build_corpus --input='text/*/wiki_*' --format=wikiextractor "
    f"--output_dir={CORPUS}",
    RUN: "experiments.pretrain --config=experiments/configs/albert_base.py "
    f"--config.data.corpus_dir={CORPUS} --workdir={RUN}",
    "runs/base-sst2": "experiments.finetune --config=experiments/configs/finetune/sst2.py "
    f"--config.data.dir=glue/SST-2 --config.run.init_from={RUN} --workdir=runs/base-sst2",
    "runs/base-nli": "experiments.finetune "
    "--config=experiments/configs/finetune/embedding_nli.py "
    "--config.data.train_file=snli/snli_1.0_train.jsonl --config.data.dev_file=glue/STS-B/dev.tsv "
    f"--config.run.init_from={RUN} --workdir=runs/base-nli",
    "runs/base-squad": "experiments.finetune --config=experiments/configs/finetune/squad_v2.py "
    "--config.data.train_file=squad/train.json --config.data.dev_file=squad/dev.json "
    f"--config.run.init_from={RUN} --workdir=runs/base-squad",
    "runs/base-en-de": "experiments.finetune "
    "--config=experiments/configs/finetune/translation.py "
    "--config.data.train_file=pairs/train.en --config.targets.train_file=pairs/train.de "
    "--config.data.dev_file=pairs/val.en --config.targets.dev_file=pairs/val.de "
    f"--config.run.init_from={RUN} --workdir=runs/base-en-de",
    "teachers/bert": f"experiments.convert --from={RUN} --to=huggingface --output=teachers/bert",
    "albert-base-v2": f"experiments.convert --from={RUN} --to=huggingface --output=albert-base-v2",
    "wiki.tfrecord": "experiments.export_records --config=experiments/configs/albert_base_v1.py "
    f"--config.data.corpus_dir={CORPUS} --output_file=wiki.tfrecord",
    "corpora/records": "experiments.import_records --input_file=wiki.tfrecord "
    "--output_dir=corpora/records",
    "batches.npz": "experiments.benchmark --what=step --corpus_dir=corpora/wiki_en "
    "--config=experiments/configs/albert_base_v2.py --record=batches.npz",
    "recordings": "experiments.benchmark --what=record_all --corpus_dir=corpora/wiki_en "
    "--output=recordings",
}
FOLDERS = {"corpora", "runs", "glue"}  # in which commands write
_TIMING = ("--num_windows=1", "--window_seconds=0.1")
SMALL: dict[str, tuple[str, ...]] = {
    "data_pipeline.build_corpus": (f"--vocab_size={VOCABULARY}", "--num_processes=1"),
    "experiments.pretrain": (*_PRETRAINING, "--config.run.accumulation_steps=1"),
    "experiments.distillation": _PRETRAINING,
    "experiments.finetune": _FINETUNING,
    "experiments.export_records": _PRETRAINING,
    "experiments.probe": ("--num_pairs=64",),
    "experiments.sweep": ("--dry_run",),
    "experiments.glue": ("--dry_run",),
    "experiments.benchmark --what=data": (*_TIMING, "--length=32"),
    "experiments.benchmark --what=step": (*_TIMING, *_PRETRAINING, "--num_batches=2"),
    "experiments.benchmark --what=encode": (*_TIMING, "--max_texts=8"),
    "experiments.benchmark --what=finetune": (*_TIMING, *_FINETUNING, "--num_batches=2"),
    "experiments.benchmark --what=generate": (
        *(*_TIMING, "--vocab_size=20", "--batch=1", "--length=8", "--new_tokens=2"),
        "--num_beams=2",
    ),
    # No compiler for TPUs or GPUs is installed among the tests: two simulated devices.
    "experiments.compile": (*_PRETRAINING, "--topology=cpu:2", "--num_slices=1"),
    "experiments.benchmark --what=record_all": ("--batch=8", "--length=32", "--num_batches=2"),
    "experiments.benchmark --what=accelerator": (
        *("--config=experiments/configs/albert_base_v2.py", *_TINY_MODEL, *_TIMING),
        "--minutes=4",
    ),
}
# Needs torch, which only `make test-interop` has.
LEFT_OUT = {"--against=torch"}
# Flags that name what a command writes; these commands write into what is there.
OUTPUTS = {"workdir", "output_dir", "output", "output_file", "record"}
READERS = {"experiments.evaluate", "experiments.probe", "--inspect", "--plan_only"}


class CommandServer:
    """A process that runs commands; see `command_server`."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests/docs")])
        environment = os.environ | {
            "PYTHONPATH": path,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": XLA_FLAGS,
        }
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/docs/command_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )

    def run(self, request: Request) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(request._asdict()), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


class Sandbox:
    """Files under the names that the documents give them.

    A command runs in its own directory, with links to all of them except what it writes.
    """

    def __init__(self, root: Path, server: CommandServer) -> None:
        self._root, self._server, self._count = root, server, 0
        self._shared = root / "shared"
        self._shared.mkdir()
        (self._shared / "experiments").symlink_to(ROOT / "experiments")
        write_inputs(self._shared)

    def run(self, argv: Sequence[str], *, parse_only: bool = False, **environment: str) -> str:
        """Run a command on small files, and return its output.

        Args:
            argv: a module or a Python file, and its arguments.
            parse_only: check the flags as they stand, and run nothing.
            environment: variables that are set for it.
        """
        argv = [argument for argument in argv if argument not in LEFT_OUT]
        named = {value for name, _, value in map(_parts, argv) if name in OUTPUTS}
        written = set() if READERS & set(argv) else named
        if not parse_only:
            self.provide(" ".join(argv), written)
            argv += self._small(argv)
        self._count += 1
        directory = self._root / f"command{self._count}"
        directory.mkdir()
        for path in (*self._shared.glob("*"), *self._shared.glob("*/*")):
            link = directory / path.relative_to(self._shared)
            if path.is_dir() and path.name in FOLDERS:
                link.mkdir()
            elif str(path.relative_to(self._shared)) not in written and not link.exists():
                link.symlink_to(path)
        if "XLA_FLAGS" in environment:
            fewer = environment["XLA_FLAGS"].replace("device_count=8", "device_count=1")
            environment["XLA_FLAGS"] = f"{fewer} {XLA_FLAGS}"
        return self._execute(argv, directory, parse_only=parse_only, **environment)

    def provide(self, text: str, written: Collection[str] = ()) -> None:
        """Make the files that a text names, but not those that a command writes."""
        for name, command in MADE.items():
            path = self._shared / name
            if name in text and name not in written and not path.exists():
                self.provide(command, {name})
                argv = shlex.split(command)
                self._execute([*argv, *self._small(argv)], self._shared)
        if "30k-clean" in text:
            self.provide(CORPUS)
            (model,) = (self._shared / CORPUS / "tokenizer").glob("*.model")
            shutil.copy(model, self._shared / "30k-clean.model")

    def _small(self, argv: Sequence[str]) -> list[str]:
        command = " ".join(argv)
        small = next((flags for name, flags in SMALL.items() if command.startswith(name)), ())
        return [*small]

    def _execute(
        self, argv: Sequence[str], cwd: Path, *, parse_only: bool = False, **environment: str
    ) -> str:
        output = self._root / "output.txt"
        request = Request(list(argv), str(cwd), str(output), environment, parse_only)
        status = self._server.run(request)
        text = output.read_text()
        assert status == 0, f"exit status {status}:\n{' '.join(argv)}\n{text[-3000:]}"
        return text


def _parts(argument: str) -> tuple[str, str, str]:
    return argument.lstrip("-").partition("=")


def sentences(seed: int, count: int) -> list[str]:
    chosen = random.Random(seed)
    words = (chosen.choices(_WORDS, k=chosen.randint(4, 10)) for _ in range(count))
    return [f"{' '.join(one).capitalize()}." for one in words]


def write_inputs(root: Path) -> None:
    """Write the text files and the tasks' files."""
    for name in (
        "text/AA",
        "books",
        "reviews",
        "arrow/stories",
        "glue/SST-2",
        "glue/STS-B",
        "snli",
        "squad",
        "mine",
        "pairs",
    ):
        (root / name).mkdir(parents=True)
    documents = ["\n".join(sentences(number, 6)) for number in range(120)]
    articles = (f'<doc id="1" url="" title="T">\n{one}\n</doc>\n' for one in documents)
    (root / "text/AA/wiki_00").write_text("".join(articles))
    books = ["\n".join(sentences(1000 + number, 6)) for number in range(60)]
    (root / "books/a.gz").write_bytes(gzip.compress("\n\n".join(books).encode()))
    reviews = "".join(f'{number},"{one}"\n' for number, one in enumerate(books))
    (root / "reviews/a.csv.gz").write_bytes(gzip.compress(f"id,body\n{reviews}".encode()))
    stories = pyarrow.table({"text": documents})
    with pyarrow.ipc.new_stream(root / "arrow/stories/data.arrow", stories.schema) as writer:
        writer.write_table(stories)
    (root / "arrow/stories/state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (root / "texts.txt").write_text("\n".join(sentences(5, 12)) + "\n")
    write_sst2(root / "glue/SST-2")
    write_sentence_pairs(root)
    write_questions(root / "squad")
    write_texts(root / "mine", {"good": "praise", "bad": "blame"})
    for number, name in enumerate(("train.en", "train.de", "val.en", "val.de")):
        (root / "pairs" / name).write_text("\n".join(sentences(number, 40)) + "\n")


def write_sentence_pairs(root: Path) -> None:
    """Write STS-B and SNLI in the form of their official files."""
    pairs = list(zip(sentences(20, 40), sentences(21, 40), strict=True))
    rows = [f"{first}\t{second}\t{n % 6}" for n, (first, second) in enumerate(pairs)]
    stsb = "\n".join(["sentence1\tsentence2\tscore", *rows]) + "\n"
    for split in ("train", "dev"):
        (root / f"glue/STS-B/{split}.tsv").write_text(stsb)
    labels = ("entailment", "neutral", "contradiction", "-")
    lines = [
        json.dumps({"gold_label": labels[n % 4], "sentence1": first, "sentence2": second})
        for n, (first, second) in enumerate(pairs)
    ]
    (root / "snli/snli_1.0_train.jsonl").write_text("\n".join(lines) + "\n")
