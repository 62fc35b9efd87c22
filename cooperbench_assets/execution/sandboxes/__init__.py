"""Sandboxes of our own for evaluations, each upstream's ``EvalBackend``.

What belongs here: places in which test programs run. What does not: what is run in them, which upstream decides.
Standard library only, and the Docker SDK: sandboxes run in the harness's environment.
"""
