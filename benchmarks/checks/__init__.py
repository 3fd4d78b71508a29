"""Promises that tests cannot hold: crashes, damage, precision, GPUs."""
