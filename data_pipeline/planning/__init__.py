"""Plans: every segment pair of an epoch and its row, computed once per corpus."""

from data_pipeline.planning.plan import Plan, open_plan

__all__ = ["Plan", "open_plan"]
