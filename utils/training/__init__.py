"""Losses, steps and the training loop."""
