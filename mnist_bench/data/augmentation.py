"""Random distortions of training images, drawn and applied on the device.

N images, C channels, H rows, W columns. Points are (x, y) in pixels from the middle of an image, y
downwards.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_bench.config.schema import AugmentationConfig


class Augmentation:
    """Mirrored, cropped, turned, scaled, sheared, shifted and elastically distorted copies."""

    def __init__(self, config: AugmentationConfig):
        self.config = config
        self.distorts = any(
            (config.rotation, config.translation, config.scale, config.shear, config.elastic)
        )

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """uint8 (N, C, H, W) to float32 of the same shape and range; all channels move alike."""
        config = self.config
        if config.horizontal_flip:
            images_NCHW = flip_half(images_NCHW, 3)
        if config.vertical_flip:
            images_NCHW = flip_half(images_NCHW, 2)
        if config.crop:
            images_NCHW = crop_anywhere(images_NCHW, config.crop)
        images_NCHW = images_NCHW.float()
        if self.distorts:
            images_NCHW = resample(images_NCHW, self.draw_sources(images_NCHW))
        return images_NCHW

    def draw_sources(self, images_NCHW: Tensor) -> Tensor:
        """Where each pixel of each copy comes from: points (N, H, W, 2)."""
        count, _, height, width = images_NCHW.shape
        device = images_NCHW.device
        ys, xs = (torch.arange(n, device=device) - (n - 1) / 2 for n in (height, width))
        points_HW2 = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), 2)
        matrix_N22, shift_N2 = self._draw_affine(count, device)
        sources_NHW2 = torch.einsum("nij,hwj->nhwi", matrix_N22, points_HW2)
        sources_NHW2 += shift_N2[:, None, None]
        if self.config.elastic > 0:
            sources_NHW2 += self._draw_elastic(count, height, width, device)
        return sources_NHW2

    def _draw_affine(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Matrices (N, 2, 2) and shifts (N, 2), each of their parts uniform between its limits."""
        config = self.config
        limits = [math.radians(config.rotation), config.scale, config.shear]
        limits += [config.translation, config.translation]
        uniform_5N = torch.rand(len(limits), count, device=device) * 2 - 1
        angle, scale, shear, x, y = (
            values * limit for values, limit in zip(uniform_5N, limits, strict=True)
        )
        cos, sin, size = angle.cos(), angle.sin(), 1 + scale
        matrix_N4 = torch.stack(
            [cos, cos * shear - sin, sin, sin * shear + cos], 1
        ) / size.unsqueeze(1)
        return matrix_N4.view(-1, 2, 2), torch.stack([x, y], 1)

    def _draw_elastic(self, count: int, height: int, width: int, device: torch.device) -> Tensor:
        """Displacements (N, H, W, 2): normal numbers under a Gaussian.

        Their deviation is the configured one in the middle, 0.7 of it at an edge, 0.5 in a corner.
        """
        sigma = self.config.smoothness
        reach = math.ceil(3 * sigma)
        offsets = torch.arange(-reach, reach + 1, device=device)
        kernel = (-(offsets**2) / (2 * sigma**2)).exp()
        kernel = kernel / kernel.norm()  # keeps the variance
        fields = torch.randn(2 * count, 1, height, width, device=device)
        fields = F.conv2d(fields, kernel.view(1, 1, -1, 1), padding="same")
        fields = F.conv2d(fields, kernel.view(1, 1, 1, -1), padding="same")
        return self.config.elastic * fields.view(count, 2, height, width).permute(0, 2, 3, 1)


def flip_half(images_NCHW: Tensor, dim: int) -> Tensor:
    """Mirror every image with a probability of one half."""
    chosen_N111 = torch.rand(len(images_NCHW), 1, 1, 1, device=images_NCHW.device) < 0.5
    return torch.where(chosen_N111, images_NCHW.flip(dim), images_NCHW)


def crop_anywhere(images_NCHW: Tensor, padding: int) -> Tensor:
    """Cut every image out of itself in a black frame of so many pixels, at any place alike."""
    count, channels, height, width = images_NCHW.shape
    device = images_NCHW.device
    top_N, left_N = torch.randint(2 * padding + 1, (2, count), device=device)
    rows_NH = top_N.unsqueeze(1) + torch.arange(height, device=device)
    columns_NW = left_N.unsqueeze(1) + torch.arange(width, device=device)
    return F.pad(images_NCHW, [padding] * 4)[
        torch.arange(count, device=device).view(-1, 1, 1, 1),
        torch.arange(channels, device=device).view(-1, 1, 1),
        rows_NH[:, None, :, None],
        columns_NW[:, None, None, :],
    ]


def resample(images_NCHW: Tensor, sources_NHW2: Tensor) -> Tensor:
    """The images at points, bilinear between pixels and zero outside."""
    height, width = images_NCHW.shape[2:]
    xs, ys = sources_NHW2.unbind(3)
    grid_NHW2 = torch.stack([xs * (2 / width), ys * (2 / height)], 3)  # from -1 to 1
    return F.grid_sample(images_NCHW, grid_NHW2, align_corners=False)


def build_augmentation(config: AugmentationConfig) -> Augmentation | None:
    """None if images stay as they are."""
    augmentation = Augmentation(config)
    moves = config.horizontal_flip, config.vertical_flip, config.crop
    return augmentation if augmentation.distorts or any(moves) else None
