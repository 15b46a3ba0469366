"""Examples of predictions: the text of model cards, and a command to run next."""

from etils import epath

from data_pipeline.terminal import suggest

MASKED_TEXT = "Paris is the [MASK] of France."


def suggest_fill_mask(model: epath.PathLike) -> None:
    """Print the command that lets a pre-trained model fill a gap."""
    suggest("experiments.predict", "--task=fill-mask", f"--model={model}", f"--text={MASKED_TEXT}")
