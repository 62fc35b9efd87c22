"""What CooperBench is: pairs, the log tree, outcomes, image names. Imports nothing else of this package."""
