"""What each part of the method adds: `python3 -m benchmarks.study`."""
