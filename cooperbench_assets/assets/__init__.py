"""Dagster assets: thin definitions over the rooms that do the work."""
