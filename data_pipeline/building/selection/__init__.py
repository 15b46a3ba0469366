"""Selection of documents: user-defined quality filters, and near-duplicates by MinHash."""
