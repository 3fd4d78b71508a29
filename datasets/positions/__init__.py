"""Positions of images: from names, a CSV file or EXIF data."""
