"""viewer: pages of experiments, pairs and transcripts, served on loopback or written as a bundle of files.

What belongs here: which data a page gets, under which key, and getting it there; ``static`` holds the pages
themselves. What does not: reading transcripts (``transcripts``), judging, statistics, Dagster.
"""
