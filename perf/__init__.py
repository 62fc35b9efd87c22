"""Measurements of speed: ours, what people use today, and the floor, in one run.

What belongs here: what is measured and how, and the page that is made of it. What does not: any pass or fail of the
tests; no test looks at a clock. ``python -m perf`` runs all of it, ``--only NAME`` one measurement.
"""
