"""Frames in, frames out: the questions that are asked of the results store. Never imports dagster."""
