"""Data sets: folders of images, and the procedural town."""
