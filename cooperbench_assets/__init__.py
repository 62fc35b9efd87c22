"""Run and judge CooperBench as Dagster assets: run logs, eval outputs and one DuckDB results store."""

__version__ = "0.1.0"
