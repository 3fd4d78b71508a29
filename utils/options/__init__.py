"""The command line -> typed values."""
