"""Figures and the static page: frames of the store and of the analyses in, files out.

What belongs here: how results are drawn, written down and explained. What does not: any statistic (``analysis``),
reading cells (``store``) and Dagster (``assets``). Nothing here needs a network, and no file that is made does.
"""
