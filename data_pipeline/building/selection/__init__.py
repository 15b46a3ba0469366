"""Selection of documents: quality filters of one's own, and near-duplicates by MinHash."""
