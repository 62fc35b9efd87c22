"""Partition tables and results.duckdb: schema, write, publish, read. Nothing else writes SQL that changes data."""
