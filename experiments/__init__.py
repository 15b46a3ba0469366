"""The commands, which join the model to the text."""

import os

# Before TensorFlow is imported: it greets on stderr, where progress bars and errors belong.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
