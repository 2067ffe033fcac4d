"""What a trained network gets right and wrong: `evaluate_run` measures, the others show."""
