"""Tasks: models with heads, their batches and their objectives, pre-training included."""
