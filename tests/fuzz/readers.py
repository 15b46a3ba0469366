"""Every reader of files, with a tiny file of each kind that it reads."""

import bz2
import gzip
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import tiny_tasks
from etils import epath
from mutations import remove
from safetensors.numpy import load_file, save_file
from tiny_corpora import make_corpus, random_lengths
from tiny_models import MODELS, THREE, make_model, random_params
from tiny_vocabularies import make
from torch_files import write_legacy, write_zip

from albert_jax import Gpt2Config, read_generation_options, read_pretrained
from albert_jax.generation import EarlyStopping, GenerationOptions, options_to_json
from albert_jax.interop.stored_weights import flatten, read_albert_config
from albert_jax.interop.tensorflow_checkpoint import CHECKPOINT, write_tensorflow
from albert_jax.interop.workdir import (
    read_decoder_config,
    read_head,
    write_decoder_config,
    write_head,
)
from data_pipeline.building.journal import Journal
from data_pipeline.config import DataConfig, WordStartRule
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.finetuning.glue import read_glue
from data_pipeline.finetuning.glue_tasks import GLUE_TASKS
from data_pipeline.finetuning.labeled_text import TextColumns, discover_labels, read_labeled_text
from data_pipeline.finetuning.race import read_race
from data_pipeline.finetuning.squad.reader import read_squad
from data_pipeline.finetuning.tagging import read_conll
from data_pipeline.planning.plan import open_plan
from data_pipeline.pretraining.dataset import PretrainingDataset, load_vocabulary
from data_pipeline.pretraining.records import RecordDataset
from data_pipeline.pretraining.tfrecord import import_records, write_records
from data_pipeline.sources.documents import Source, SourceFormat
from data_pipeline.sources.text_files import ReadingProgress
from data_pipeline.tokenizers.declared_tokens import ADDED_TOKENS_FILE, SPECIAL_TOKENS_FILE
from data_pipeline.tokenizers.export import write_tokenizer
from data_pipeline.tokenizers.pretrained import read_pretrained_tokenizer
from experiments.benchmarks.batches import Batches, record, replay
from experiments.cli.config_dicts import to_json
from experiments.cli.listing import requested_listing
from experiments.prediction.inputs import read_inputs
from experiments.run.config import ExperimentConfig
from experiments.run.workdir import read_config
from experiments.sweeping import pretraining as pretraining_points
from experiments.sweeping.sweep import Size, load_sweep
from experiments.tasks import span

CONFIG = DataConfig(max_seq_length=32, max_predictions_per_seq=6)
RAW_TEXT = "The café of 2011, (x) — don't."


class Reader(NamedTuple):
    """A function that reads a file, and an intact file."""

    file: Path
    read: Callable[[], Any]

    @property
    def is_json(self) -> bool:
        """True for JSON, including files of one object per line."""
        return self.file.suffix in (".json", ".jsonl")


def make_readers(root: Path) -> dict[str, Reader]:
    """Write all files below a directory, and return their readers by name."""
    found: dict[str, Reader] = {}
    for name, write in {
        "model": _models,
        "tokenizer": _tokenizers,
        "corpus": _corpora,
        "task": _tasks,
        "source": _sources,
        "run": _runs,
        "code": _code,
    }.items():
        (root / name).mkdir()
        readers = write(root / name)
        found |= {f"{name} {kind}": Reader(*reader) for kind, reader in readers.items()}
    return found


Readers = dict[str, tuple[Path, Callable[[], Any]]]


def _models(root: Path) -> Readers:
    model = make_model(*MODELS["classes"])
    params = random_params(model)
    readers: Readers = {}
    for kind in ("safetensors", "zip", "legacy", "shards"):
        model.save_pretrained(root / kind, params)
        weights = root / kind / "model.safetensors"
        tensors = load_file(weights)
        file = weights.with_name("pytorch_model.bin")
        if kind == "shards":
            names = sorted(tensors)
            file = weights.with_name("model.safetensors.index.json")
            shards = dict.fromkeys(names[:5], "a.safetensors")
            shards |= dict.fromkeys(names[5:], "b.safetensors")
            for shard in ("a.safetensors", "b.safetensors"):
                part = {name: tensors[name] for name in names if shards[name] == shard}
                save_file(part, root / kind / shard)
            file.write_text(json.dumps({"weight_map": shards}))
        elif kind != "safetensors":
            {"zip": write_zip, "legacy": write_legacy}[kind](file, tensors)
        if kind != "safetensors":
            weights.unlink()
        path = root / kind

        def read(path: Path = path) -> Any:
            return read_pretrained(path)

        readers[kind] = (weights if kind == "safetensors" else file, read)
    readers["config.json"] = (root / "safetensors/config.json", readers["safetensors"][1])
    readers["shard"] = (root / "shards/b.safetensors", readers["shards"][1])

    pretraining = make_model(*MODELS["pre-training"])
    (root / "released").mkdir()
    flat = flatten(random_params(pretraining))
    write_tensorflow(root / "released", flat, pretraining.config)
    for name in ("albert_config.json", f"{CHECKPOINT}.index", f"{CHECKPOINT}.data-00000-of-00001"):
        readers[name] = (root / "released" / name, lambda: read_pretrained(root / "released"))
    config = epath.Path(root / "released/albert_config.json")
    readers["albert_config.json alone"] = (Path(config), lambda: read_albert_config(config))
    head = epath.Path(root / "head.json")
    write_head(head, "AlbertForSequenceClassification", THREE)
    readers["head.json"] = (Path(head), lambda: read_head(head))
    decoder = epath.Path(root / "decoder_config.json")
    write_decoder_config(decoder, Gpt2Config())
    readers["decoder_config.json"] = (Path(decoder), lambda: read_decoder_config(decoder))
    (root / "options").mkdir()
    options = root / "options/generation_config.json"
    beams = GenerationOptions(num_beams=4, early_stopping=EarlyStopping.NEVER)
    options.write_text(json.dumps(options_to_json(beams)))
    readers["generation_config.json"] = (options, lambda: read_generation_options(options.parent))
    return readers


def _tokenizers(root: Path) -> Readers:
    readers: Readers = {}

    def add(name: str, file: Path, path: Path) -> None:
        def read() -> None:
            tokenizer = read_pretrained_tokenizer(path)
            tokenizer.encode(RAW_TEXT)

        readers[name] = (file, read)

    for kind in ("sentencepiece", "wordpiece"):
        tokenizer = make(kind, "uncased")
        own, exported = root / kind, root / f"{kind}-exported"
        tokenizer.save(own)
        exported.mkdir()
        write_tokenizer(tokenizer, exported, model_max_length=64)
        vocabulary = own / tokenizer.VOCABULARY_FILE
        add(f"{kind} vocabulary", vocabulary, vocabulary)
        add(f"{kind} settings", own / "tokenizer.json", own)
        add(f"{kind} tokenizer.json", exported / "tokenizer.json", exported / "tokenizer.json")
        add(f"{kind} tokenizer_config.json", exported / "tokenizer_config.json", exported)
        declared = root / f"{kind}-declared"
        shutil.copytree(exported, declared)
        added, special = (declared / name for name in (ADDED_TOKENS_FILE, SPECIAL_TOKENS_FILE))
        added.write_text(json.dumps({"[ENT]": tokenizer.vocab_size}))
        listed = {"cls_token": "[CLS]", "additional_special_tokens": ["[ENT]"]}
        special.write_text(json.dumps(listed))
        add(f"{kind} {added.name}", added, declared)
        add(f"{kind} {special.name}", special, declared)
    return readers


def _corpora(root: Path) -> Readers:
    corpus = make_corpus(root / "corpus", random_lengths(40, seed=0))
    plan = open_plan(corpus, "train", CONFIG)
    dataset = PretrainingDataset(corpus, CONFIG, seed=1, global_batch_size=8)
    rows = next(dataset.batches(start_step=0))
    records, imported, again = (root / name for name in ("a.tfrecord", "imported", "again"))
    write_records([rows], [records], vocabulary=load_vocabulary(corpus, WordStartRule.SPACE))
    import_records([records], imported)
    Journal({"seed": 1}, True, 2, {"train": {"tokens": 5}}).save(root)
    experiment = ExperimentConfig(data=CONFIG, global_batch_size=8)
    record(Batches([rows], "a corpus"), root / "batches.npz")

    def read_tfrecord() -> None:
        try:
            import_records([records], again)
        finally:
            remove(again)

    def read_imported() -> None:
        next(RecordDataset(imported, CONFIG, seed=0, global_batch_size=4).batches(start_step=0))

    shard = next((root / "corpus/train").glob("shard-*"))
    return {
        "metadata.json": (root / "corpus/metadata.json", lambda: open_corpus(root / "corpus")),
        "tokens": (next(shard.glob("tokens*")), lambda: open_corpus(root / "corpus")),
        "plan": (plan.path / "metadata.json", lambda: open_plan(corpus, "train", CONFIG)),
        "journal.json": (root / "journal.json", lambda: Journal.load(root)),
        "tfrecord": (records, read_tfrecord),
        "imported": (imported / "metadata.json", read_imported),
        "npz": (root / "batches.npz", lambda: replay(root / "batches.npz", experiment)),
    }


def _tasks(root: Path) -> Readers:
    columns = TextColumns(label="label", id="id")
    table = [("id", "text", "label")]
    table += [(str(n), f"A text, {n}.", ("good", "bad")[n % 2]) for n in range(8)]
    csv = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in table)
    records = (dict(zip(table[0], row, strict=True)) for row in table[1:])
    files = {
        "a.tsv": "".join("\t".join(row) + "\n" for row in table).encode(),
        "a.csv": csv.encode(),
        "a.jsonl": "".join(json.dumps(one) + "\n" for one in records).encode(),
        "a.csv.gz": gzip.compress(csv.encode()),
    }
    readers: Readers = {}
    for name, content in files.items():
        path = root / name
        path.write_bytes(content)

        def read(path: Path = path) -> None:
            read_labeled_text(path, columns, discover_labels(path, "label"))

        readers[name] = (path, read)
    for name, write in {
        "glue": tiny_tasks.write_sst2,
        "tags": tiny_tasks.write_tags,
        "questions": tiny_tasks.write_questions,
        "choices": tiny_tasks.write_choices,
    }.items():
        (root / name).mkdir()
        write(root / name)
    choices = root / "choices"
    for split in ("train", "dev"):
        for group in ("middle", "high"):
            for file in sorted((choices / "RACE" / split / group).glob("*"))[3:]:
                file.unlink()
    questions = root / "questions/dev.json"
    passage = sorted((choices / "RACE/dev/high").glob("*.txt"))[0]
    return readers | {
        "glue": (
            root / "glue/train.tsv",
            lambda: read_glue(GLUE_TASKS["sst-2"], root / "glue", "train"),
        ),
        "tags": (root / "tags/dev.txt", lambda: read_conll(root / "tags/dev.txt")),
        "squad.json": (questions, lambda: read_squad(questions)),
        "race": (passage, lambda: read_race(choices, "dev")),
    }


def _sources(root: Path) -> Readers:
    text = "A first sentence.\nIts second — é.\n\nAnother document.\n".encode()
    objects = b'{"text": "One. Two.", "title": "One."}\n{"text": "Three."}\n'
    wiki = b'<doc id="1" title="A">\nA\n\nText &amp; more.\n</doc>\n' + objects
    files = {
        "a.txt": (SourceFormat.TEXT, text),
        "a.txt.gz": (SourceFormat.TEXT, gzip.compress(text)),
        "a.txt.bz2": (SourceFormat.SENTENCES, bz2.compress(text)),
        "a.txt.xz": (SourceFormat.TEXT, lzma.compress(text)),
        "a.txt.zst": (SourceFormat.TEXT, pyarrow.compress(text, "zstd", asbytes=True)),
        "a.jsonl": (SourceFormat.JSONL, objects),
        "wiki": (SourceFormat.WIKIEXTRACTOR, wiki),
        "a.csv": (SourceFormat.CSV, b'id,text\r\n1,"One, ""two"".\n\nThree."\r\n2,Four.\r\n'),
        "a.tsv": (SourceFormat.TSV, b"id\ttext\n1\tOne.\n2\tTwo.\n"),
    }
    readers: Readers = {}
    for name, (_, content) in files.items():
        (root / name).write_bytes(content)
    table = pyarrow.table({"text": ["One. Two.", None, "Three."], "id": [1, 2, 3]})
    pyarrow.parquet.write_table(table, root / "a.parquet")
    with pyarrow.ipc.new_stream(root / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    kinds = {name: kind for name, (kind, _) in files.items()}
    for name in ("a.parquet", "a.arrow"):  # read alike, by their suffix
        kinds[name] = SourceFormat.PARQUET
    for name, kind in kinds.items():
        source = Source("memory", kind, (str(root / name),))

        def read(source: Source = source) -> None:
            files = source.find_inputs()
            list(source.with_text_column(files).read(files, ReadingProgress()))

        readers[name] = (root / name, read)
    return readers


def _runs(root: Path) -> Readers:
    (root / "config.json").write_text(to_json(ExperimentConfig()))
    figures = {"figures": {"f1": 50.0, "null_threshold": -1.5}}
    (root / "report.json").write_text(json.dumps({"splits": {"dev": figures}}))
    runs = {"task": "squad", "runs": {}, "learning_rates": [{"median": 0.5}]}
    (root / "summary.json").write_text(json.dumps(runs))
    accuracies = {"accuracies": {"sentence_order_probe": 0.5}}
    (root / "probe.json").write_text(json.dumps(accuracies))
    for name, content in (
        ("inputs.txt", "One text.\nAnother — é.\n"),
        ("inputs.jsonl", '{"text": "One."}\n{"text": "Two.", "text_pair": "Three."}\n'),
    ):
        (root / name).write_text(content)

    def read_texts(name: str) -> None:
        for given in read_inputs(root / name):
            given.text()

    return {
        "config.json": (root / "config.json", lambda: read_config(root, ExperimentConfig)),
        "report.json": (root / "report.json", lambda: span._reported_threshold(str(root))),
        "summary": (
            root / "summary.json",
            lambda: pretraining_points._read_score(root / "summary.json"),
        ),
        "probe.json": (
            root / "probe.json",
            lambda: pretraining_points._read_probe(root / "probe.json"),
        ),
        "inputs.txt": (root / "inputs.txt", lambda: read_texts("inputs.txt")),
        "inputs.jsonl": (root / "inputs.jsonl", lambda: read_texts("inputs.jsonl")),
    }


def _code(root: Path) -> Readers:
    """Files of Python and of flags: what runs them names them, whatever they end with."""
    experiments = Path(__file__).parents[2] / "experiments"
    config, sweep, written = root / "config.py", root / "sweep.py", root / "flags"
    config.write_text((experiments / "configs/albert_tiny_cpu.py").read_text())
    sweep.write_text((experiments / "sweeps/norm.py").read_text())
    written.write_text(f"--config={experiments}/configs/albert_tiny_cpu.py\n--config.seed=7\n")

    def list_settings(argument: str) -> str | None:
        return requested_listing(["pretrain", argument, "--list_config"], ExperimentConfig)

    return {
        "config.py": (config, lambda: list_settings(f"--config={config}")),
        "sweep.py": (sweep, lambda: load_sweep(str(sweep), Size.SMALL)),
        "flagfile": (written, lambda: list_settings(f"--flagfile={written}")),
    }
