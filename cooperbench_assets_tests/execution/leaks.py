"""Where `leaking_agents` finds keys; a module of its own, because importing an agent imports all of the harness."""

from __future__ import annotations

KEYS = "LEAK_VARIABLES"
"""Variable that names the variables with keys."""

ANCESTORS = """
import os
pid = os.getpid()
while pid > 0:
    try:
        print(open(f"/proc/{pid}/environ", errors="replace").read())
    except OSError as error:
        print(error)
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
"""
"""A program that prints what the variables of its process were when it began, and those of all that it comes from."""
