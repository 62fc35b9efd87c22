"""What CooperBench is: pairs, the log tree, outcomes, image names. Imports no other room."""
