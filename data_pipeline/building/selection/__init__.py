"""Selection of documents: custom quality filters, and near-duplicates by MinHash."""
