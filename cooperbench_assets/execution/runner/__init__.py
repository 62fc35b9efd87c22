"""One stage of one cell, from its lock to its report: slots, harness servers, and the scheduler of children."""
