"""Times and rates."""
