"""Train one network, or with -m a sweep of them: the same as `mnist-bench train`."""

from mnist_bench.launch.main import main

if __name__ == "__main__":
    main()
