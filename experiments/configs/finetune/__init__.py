"""Fine-tuning experiments, one file each, with ALBERT Table 14's settings unless they differ."""
