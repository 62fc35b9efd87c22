"""Runs that exist already: found by a template, described in a defs.yaml, taken over as cells."""
