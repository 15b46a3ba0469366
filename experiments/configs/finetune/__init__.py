"""Fine-tunings, one file each, with the settings of ALBERT Table 14 unless they say otherwise."""
