"""Frames in, frames out: the questions that are asked of the results store. Never imports dagster.

What belongs here: plain functions on polars frames, the tables that they make, and the statistics that they use.
What does not: reading files or DuckDB (``store``), figures and pages (``report``). ``registry`` lists every analysis.
"""
