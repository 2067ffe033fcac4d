"""Train one network, or with -m a sweep of them: the same as `mnist-bench train`."""

from mnist_bench.__main__ import train

if __name__ == "__main__":
    train()
