"""Corpus builds as Apache Beam jobs, on many machines."""
