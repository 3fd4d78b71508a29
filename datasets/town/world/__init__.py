"""What stands in the streets of the town, and where. Nothing here knows how a camera sees it."""
