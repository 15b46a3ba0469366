"""Fine-tuning data: GLUE, SQuAD, RACE, tagging and labeled texts, from files to batches."""
