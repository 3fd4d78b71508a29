"""What runs the method: training, evaluation, checkpoints and the command line."""
