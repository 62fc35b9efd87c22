"""What happens without a hand: retries, alerts, backfills, what follows new results; and the jobs people click."""
