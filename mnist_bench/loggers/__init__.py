"""Where the records of a run are shown: the console and TensorBoard."""
