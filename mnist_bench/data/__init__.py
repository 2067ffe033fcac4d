"""The datasets: what each one is, where its files come from, and reading them."""
