"""Path length regularization in PyTorch, in the eager form and in one that `torch.compile` can differentiate.

Source: arXiv 1912.04958, section 3.2.

Legend: `B` images of the regularization, `C H W` image shape, `L` layers that take a style, `S` size of a style.
"""

import torch
from torch import nn

from benchmarks.architecture_options import Stylegan2ModelOptions
from benchmarks.peers.pytorch_stylegan2 import StyleGenerator

_MEAN_SHARE = 0.01
"""Share of a batch in the moving average of path lengths."""


class PathLengthPenalty:
    """The squared deviation of path lengths from their moving average, with its weight, at every k-th step.

    Args:
        generator: Generator, whose `path_length_mean` it moves.
        options: Options of the model.
        latents_shape: Number of latents and their size, (B, Z).
        image_shape: Shape of the images, (C, H, W).
        precision: Precision of the synthesis: float32 or bfloat16.
        compiled: Whether `torch.compile` compiles the path lengths.
    """

    def __init__(
        self,
        generator: StyleGenerator,
        options: Stylegan2ModelOptions,
        latents_shape: tuple[int, int],
        image_shape: tuple[int, int, int],
        precision: str,
        *,
        compiled: bool,
    ):
        self._generator, self._precision = generator, precision
        self._every, self._weight = options.path_length_every_steps, options.path_length_weight
        self._latents_shape, self._image_shape = latents_shape, image_shape
        self._gradients = torch.compile(differentiate_functionally) if compiled else differentiate_eagerly

    def __call__(self, step: int) -> torch.Tensor | float:
        """Returns the term of the generator's loss at a step; 0 between two regularizations."""
        if not self._weight or step % self._every:
            return 0.0
        mean = self._generator.path_length_mean
        styles = self._generator.styles(torch.randn(self._latents_shape, device=mean.device))
        directions = torch.randn(len(styles), *self._image_shape, device=mean.device)
        gradients = self._gradients(self._generator.synthesis, styles, directions, self._precision)
        lengths = (gradients.square().sum(2).mean(1) + 1e-12).sqrt()  # the square root of 0 has no gradient
        penalty = (lengths - mean).square().mean()
        mean.lerp_(lengths.detach().mean(), _MEAN_SHARE)
        return self._every * self._weight * penalty


def differentiate_eagerly(
    synthesis: nn.Module, styles: torch.Tensor, directions: torch.Tensor, precision: str
) -> torch.Tensor:
    """Returns the gradients of images in random directions with respect to styles, with a graph of their own.

    Args:
        synthesis: Network [B, L, S] -> [B, C, H, W].
        styles: Styles [B, L, S] that are part of a graph.
        directions: Random numbers N(0, 1), [B, C, H, W].
        precision: Precision of the network: float32 or bfloat16.

    Returns:
        Gradients [B, L, S].
    """
    products = _products(synthesis, styles, directions, precision)
    return torch.autograd.grad(products, styles, create_graph=True)[0]


def differentiate_functionally(
    synthesis: nn.Module, styles: torch.Tensor, directions: torch.Tensor, precision: str
) -> torch.Tensor:
    """Returns the result of `differentiate_eagerly`, in a form that `torch.compile` can differentiate."""
    return torch.func.grad(lambda styles: _products(synthesis, styles, directions, precision))(styles)


def _products(synthesis: nn.Module, styles: torch.Tensor, directions: torch.Tensor, precision: str) -> torch.Tensor:
    with torch.autocast(styles.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        images = synthesis(styles)
    height, width = directions.shape[2:]
    return (images * directions).sum() * (height * width) ** -0.5
