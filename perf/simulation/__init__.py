"""Which interval and which test keep their promise at this benchmark's sizes, by simulation.

What belongs here: made studies whose truth is known, the candidates, and the page that says which one is used where.
What does not: the formulas in use (``cooperbench_assets.analysis``), which are tried here as they stand there.
"""
