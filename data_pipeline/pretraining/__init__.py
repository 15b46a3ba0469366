"""Pre-training data: the plan of an epoch, segment pairs, packing, masks and batches."""
