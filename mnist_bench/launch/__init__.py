"""What starts runs: the command's own side of Hydra."""
