"""Running on a Docker engine: sandboxes for evaluations, task images, agents' containers, and cleaning up.

What belongs here: everything that talks to an engine. What does not: which pair is run when, and Dagster.

``sandbox`` and what it imports use the standard library and the Docker SDK only, because they also run inside the
harness server, in an environment that may have nothing else of ours.
"""
