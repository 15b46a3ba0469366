"""What `benchmarks.report.environment` says about a made-up machine."""

MADE = {
    "device": "a GPU x 1",
    "host": "h",
    "python": "3.12",
    "versions": {"jax": "0.11"},
    "commit": "abc",
    "command": "python -m experiments.benchmark",
    "date": "2026-11-27",
}
