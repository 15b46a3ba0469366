"""Sweeps: tables of experiments, planned, launched, collected and reported."""
