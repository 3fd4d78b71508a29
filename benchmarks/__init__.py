"""What backs the figures of the README: each module is one command."""
