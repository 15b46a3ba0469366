"""One file per fine-tuning."""
