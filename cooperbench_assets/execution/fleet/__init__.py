"""Pairs on the nodes of a Ray cluster: what stands in for the harness server and the slots of one machine.

What belongs here: starting, ending and fetching children on other machines, and leases that end them by themselves.
What does not: what a child does (``worker``), when one is started, and what became of it (``runner``, ``attempts``).
Without ``fleet:`` in defs.yaml nothing of this is imported.
"""
