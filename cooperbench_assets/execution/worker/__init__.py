"""What runs inside the harness's environment: the server that forks, and the child that runs one pair.

What belongs here: modules that import nothing but the standard library, the harness and what the harness itself
requires. What does not: whatever plans or records (the rooms beside this one).
"""
