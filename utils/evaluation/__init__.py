"""Recall, segmentation and the files of results."""
