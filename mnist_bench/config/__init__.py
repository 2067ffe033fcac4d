"""What can be configured: schemas, ranges, composing by Hydra, and its errors in a sentence."""
