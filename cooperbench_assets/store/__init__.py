"""Partition tables and results.duckdb: schema, write, publish, read.

Nothing but this room writes SQL that changes data.
"""
