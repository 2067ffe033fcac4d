"""What can be concluded from many runs."""
