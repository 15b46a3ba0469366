"""Fine-tuning tasks: configuration, data, models, evaluation and reports."""
