"""One module a figure or two: result tables of one experiment in, a chart or a sentence out.

What belongs here: what is drawn, and the sentence where there is too little to draw. What does not: colours and fonts
(``report.style``), files (``report.build``), and any statistic (``analysis``).
"""
