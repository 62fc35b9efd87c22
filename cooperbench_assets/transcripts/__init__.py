"""What agents did, as data for pages: the list of pairs, one pair, and the texts of its steps in chunks.

What belongs here: reading logs, trajectories and tables into the records of ``transcripts.model``. What does not:
serving and drawing them, and judging (``benchmark.outcomes``). No Dagster is needed: any folder of CooperBench runs
will do.
"""
