"""A page on which one draws, and sees what a trained network makes of it."""
