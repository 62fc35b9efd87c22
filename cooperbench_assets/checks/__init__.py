"""What is asserted of each asset: pure functions that find, and the Dagster checks that report."""
