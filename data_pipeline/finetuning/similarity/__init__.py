"""Texts that are alike: read from files, encoded with a number for equal ones, and ranked."""
