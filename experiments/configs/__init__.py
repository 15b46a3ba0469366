"""Pre-training experiments, one file each, with what they reproduce, their cost and their results.

The errors of the released generator of batches are corrected in all of them; to restore one, set
the setting that `DataConfig.legacy` lists.
"""
