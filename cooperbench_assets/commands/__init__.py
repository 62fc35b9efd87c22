"""The commands of the command line, one module each, imported by ``cli`` when they are called.

What belongs here: options, and showing what the rooms found. What does not: the finding itself, and anything at the
top of a module that imports Dagster, the harness or litellm.
"""
