"""Searches: a space of settings, an Optuna study that processes share, and how its trials went."""
