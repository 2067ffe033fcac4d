"""Networks of PyTorch's own layers, written by hand: the published ones, and one that is none."""

import torch
from torch import Tensor, nn

# Layers as published: C filters k kernel, P pool, D dropout, F dense units, BN batch norm.
PUBLISHED = {
    "vgg16": (
        "C64k3 C64k3 P2 C128k3 C128k3 P2 C256k3 C256k3 C256k3 P2 C512k3 C512k3 C512k3 P2 "
        "C512k3 C512k3 C512k3 F256 D.5 F256 D.5 F10"
    ),
    "conv3_dense7744": "C32k3 C64k3 C64k3 P2 F7744 F128 F10",
    "mnist_cnn": "C32k3 C64k3 P2 D.25 F128 D.5 F10",
    "cnn3x3": "C32k3 C64k3 P2 D.25 F128 D.5 F10",
    "cnn5x5": "C32k5 C64k5 P2 D.25 F128 D.5 F10",
    "cnn5x5_single": "C32k5 P2 D.25 F128 D.5 F10",
    "wide3x3": "C64k3 C128k3 P2 D.5 F128 D.5 F10",
    "wide3x5_bn": "C64k3 C128k5 P2 D.5 F256 BN D.5 F10",
    "wide5x7_bn": "C64k5 C128k7 P2 D.5 F256 BN D.5 F128 BN D.5 F10",
}


class Flatten(nn.Module):
    """Over rows, columns, channels, as Keras flattens."""

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return maps_NCHW.permute(0, 2, 3, 1).flatten(1)


def by_hand(name: str) -> nn.Sequential:
    """A published network as anyone would write it in PyTorch."""
    layers: list[nn.Module] = []
    channels, side, features = 1, 28, 0
    padding = "same" if name == "vgg16" else "valid"
    for layer in PUBLISHED[name].split():
        kind, _, k = layer.partition("k")
        if k:
            layers += [nn.Conv2d(channels, int(kind[1:]), int(k), padding=padding), nn.ReLU()]
            channels, side = int(kind[1:]), side if padding == "same" else side - int(k) + 1
        elif layer == "P2":
            layers.append(nn.MaxPool2d(2))
            side //= 2
        elif layer == "BN":
            layers.append(nn.BatchNorm1d(features, eps=1e-3, momentum=0.01))
        else:
            if not features:
                layers.append(Flatten())
                features = channels * side * side
            if layer.startswith("D"):
                layers.append(nn.Dropout(float(layer[1:])))
            else:
                layers += [nn.Linear(features, int(layer[1:])), nn.ReLU()]
                features = int(layer[1:])
    return nn.Sequential(*layers[:-1])  # no ReLU behind the logits


class Residual(nn.Module):
    """What users build: branches, a layer used twice, settings that no layer of ours has."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(inplace=True)
        )
        self.strided = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.dilated = nn.Conv2d(32, 32, 3, padding=2, dilation=2)
        self.without_bias = nn.Conv2d(32, 32, 3, padding="same", bias=False)
        self.around = nn.Conv2d(32, 32, 3, padding=1, padding_mode="circular")
        self.rectangular = nn.Conv2d(32, 32, (1, 5), padding=(0, 2))
        self.twice = nn.Conv2d(32, 32, 3, padding=1)
        self.large = nn.Sequential(
            nn.Conv2d(32, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 48, 5), nn.ReLU()
        )
        self.average = nn.AvgPool2d(2, ceil_mode=True)
        self.overlapping = nn.MaxPool2d(3, stride=2, padding=1)
        self.head = nn.Linear(48, 10)
        self.unbiased = nn.Linear(10, 10, bias=False)

    def forward(self, images_N1HW: Tensor) -> Tensor:
        x = self.stem(images_N1HW)
        x = x + self.twice(self.twice(x).relu())
        x = x + self.grouped(x) + self.dilated(x) + self.without_bias(x)
        x = x + self.around(x) + self.rectangular(x)
        x = x / self.twice.weight.norm()  # a weight that is read
        x = torch.cat([self.strided(x), self.overlapping(x)], 0)
        x = self.average(self.large(x)).mean((2, 3))
        return self.unbiased(self.head(x.unflatten(0, (2, -1))).sum(0))  # on (2, N, 48)
