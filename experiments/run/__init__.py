"""Runs: configuration, working directory, devices, logs, and training itself."""
