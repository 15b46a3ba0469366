"""Similar texts: read from files, encoded with shared numbers for equal texts, and ranked."""
