"""Networks to and from the files of Keras, without Keras."""
