"""The command `data_pipeline.build_corpus` in small blocks, each of them saved."""

import sys

from data_pipeline import build_corpus
from data_pipeline.building import builder, parts

parts._BLOCK_CHARACTERS = 8000
builder._BLOCKS_PER_SAVE = 2
sys.exit(build_corpus.main(sys.argv))
