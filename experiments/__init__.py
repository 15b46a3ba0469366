"""The commands, which join the model to the text."""
