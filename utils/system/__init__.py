"""Process, device and messages."""
