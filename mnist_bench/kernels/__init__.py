"""PyTorch's layers, computed another way where that is faster on a CPU. All of it is optional."""
