"""Image files of any kind, answered by a trained network.

`answer_files` is the way in. `files` and `mnist_form` know of no network and load no PyTorch.
"""
