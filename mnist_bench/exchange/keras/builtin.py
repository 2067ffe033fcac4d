"""Keras's own layers by name: which change nothing, and which cannot be read."""

from collections.abc import Sequence

from mnist_bench.errors import DataError

# Layers that pass on what they are given whenever a network is used rather than trained.
_INERT = """
    ActivityRegularization AlphaDropout GaussianDropout GaussianNoise Identity SpatialDropout1D
    SpatialDropout2D SpatialDropout3D
    AugMix CutMix MixUp RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter
    RandomContrast RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur
    RandomGrayscale RandomHeight RandomHue RandomInvert RandomPerspective RandomPosterization
    RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation RandomWidth
    RandomZoom
"""
INERT = frozenset(_INERT.split())
# Those that no network here has, of Keras 2 and 3.
_UNREAD = """
    AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D
    AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention Attention
    AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D Bidirectional
    CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D
    Conv1DTranspose Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D
    Cropping1D Cropping3D CuDNNGRU CuDNNLSTM DepthwiseConv1D DepthwiseConv2D Discretization Dot ELU
    EinsumDense Embedding Equalization GRU GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GroupNormalization GroupedQueryAttention GroupQueryAttention HashedCrossing Hashing
    IntegerLookup LSTM
    LayerNormalization LeakyReLU LocallyConnected1D LocallyConnected2D Masking MaxPooling1D
    MaxPooling3D Maximum MelSpectrogram Minimum MultiHeadAttention Multiply Normalization PReLU
    Permute RMSNormalization RNN RandomCrop RepeatVector Resizing ReversibleEmbedding
    STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN Solarization SpectralNormalization
    StringLookup Subtract SyncBatchNormalization TextVectorization ThresholdedReLU TimeDistributed
    UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
    ZeroPadding3D
"""
UNREAD = frozenset(_UNREAD.split())


def refuse_layers(source: str, unread: Sequence[str], own: Sequence[str], chain: str) -> None:
    """Raise DataError if there are `unread` layers of Keras's, or `own` ones of somebody's code.

    `chain` has all layers of the file, so that a reader need not find out one by one.
    """
    if not (unread or own):
        return
    named = _listed([*dict.fromkeys(unread), *dict.fromkeys(own)])
    code = (
        f" (nothing in a file is executed, so {_listed([*dict.fromkeys(own)])} can be anything)"
        if own
        else ""
    )
    raise DataError(
        f"{source} has {named}, which no network here has{code}; its layers are {chain}."
    )


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
