"""The driver of a build on Beam streams the records of parts: 100,000 of them take under 1 GB."""

import subprocess
import sys

import pytest

PLAN = """
import re, sys
from collections import Counter
from pathlib import Path
import numpy as np
from data_pipeline import build_corpus
from data_pipeline.building.beam import planning
from data_pipeline.building.beam.job import BuildJob, write_records
from data_pipeline.building.beam.stages import PartSummary
from data_pipeline.building.selection.documents import Selection
from data_pipeline.building.splits.blocks import DocumentSizes
from data_pipeline.building.splits.held_out import BlockReference, HashFile
from data_pipeline.corpus.splits import ShardSize
from data_pipeline.sources.documents import Source, SourceFormat
from data_pipeline.sources.sentences import SentenceSplitter
from data_pipeline.sources.text_files import InputFile

NUM_PARTS, BLOCKS = 100_000, 4
SIZE = ShardSize(1_000_000, 40_000, 1600)

class Splits:
    def sizes(self, split):
        documents = np.ones(SIZE.documents, np.int64)
        return DocumentSizes(documents * 625, documents * 25)

BlockReference.read = lambda self, **options: Splits()
formats = (SourceFormat.JSONL,)
job = BuildJob(
    *(sys.argv[1], sys.argv[1], (Source("web", *formats, ("x",)),), Selection(("web",))),
    *(SentenceSplitter("en", formats), 0.01, "", ()),
)
files = [InputFile(f"gs://b/part-{n:06d}.jsonl", 64 << 20, "1") for n in range(NUM_PARTS)]
num_files, num_parts = planning.write_parts(job, [files])
assert num_parts == NUM_PARTS
for group in range(num_files):
    parts = range(1000 * group, 1000 * (group + 1))
    summaries = [PartSummary(part, [SIZE] * BLOCKS, 1, {}, {}, Counter()) for part in parts]
    write_records(job.records("summaries", group), summaries)
    write_records(job.records("held_out", group), [])
journal, _ = planning.read_summaries(job, num_files)
tasks = planning.write_tasks(job, "train", num_files, HashFile(job.path("none"), ""), 30_000)
# Not getrusage, whose peak begins with that of the process that started this one.
(peak,) = re.findall(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(journal.duplicates, tasks, int(peak) // 1024)
"""


@pytest.mark.slow
def test_a_hundred_thousand_parts(tmp_path):
    command = [sys.executable, "-c", PLAN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    duplicates, tasks, megabytes = map(int, done.stdout.split())
    assert duplicates == 100_000
    assert tasks > 30  # files of a hundred shards
    assert megabytes < 1000
