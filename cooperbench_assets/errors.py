"""The base of every error that is written for a person.

What belongs here: that one class. What does not: the errors themselves, each in the room that raises it. Any room may
import this; it imports nothing.
"""

from __future__ import annotations


class UserError(Exception):
    """Something that a person can fix: the message is one sentence that names it and the remedy.

    The command line shows the message alone. Any other exception that gets so far is a mistake of this package, and
    keeps its traceback.
    """
