"""What a launch will do with each pair, in which order, and for how much money."""
