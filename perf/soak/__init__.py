"""``python -m perf.soak``: random faults against real runs, until none is left to inject or the time is over.

What belongs here: faults, what must hold after each of them, and the page that says what was seen
(docs/reliability.md). What does not: single faults at chosen moments, which are tests of ``execution`` and
``automation``.

An experiment of scripted agents is run to its end undisturbed, once; then again and again while faults are injected.
After every fault the invariants are checked, and at the end of every pass the outcome, reason, patch and verdict of
each pair must be those of the undisturbed run.
"""
