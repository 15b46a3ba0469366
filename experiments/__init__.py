"""The commands, which join the model to the text."""

import data_pipeline
