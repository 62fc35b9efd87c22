"""An experiment as one file for co-authors, and such a file taken in."""
