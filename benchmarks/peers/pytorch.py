"""Eager PyTorch: batches are indexed from a tensor in memory; `torch.autograd.grad` computes each phase's gradients.

Legend: `B` batch size, `C H W` image shape, `Z` latent size, `K` classes.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from benchmarks.cases import Case, Contender
from benchmarks.peers import pytorch_networks

_MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class PyTorch:
    """Networks, optimizers and training loop of a case."""

    def __init__(self, case: Case, memory_format: torch.memory_format, fused: bool):
        self._case = case
        networks = pytorch_networks.build(case)
        self._generator, self._discriminator = (_in_format(network, memory_format) for network in networks)
        self._parameters = list(self._generator.parameters()), list(self._discriminator.parameters())
        rates = case.config.generator_learning_rate, case.config.discriminator_learning_rate
        self._optimizers = [
            _optimizer(case, parameters, rate, fused) for parameters, rate in zip(self._parameters, rates, strict=True)
        ]
        self.num_parameters = _count(self._generator), _count(self._discriminator)
        images = torch.from_numpy(case.float_images).permute(0, 3, 1, 2)
        self._images = images.contiguous(memory_format=memory_format)
        self._labels = torch.from_numpy(case.labels).long()
        self._batches = self._epochs()
        self._step = self._joint_step if case.config.update_order == "simultaneous" else self._alternating_step

    def run(self, num_steps: int) -> None:
        for images, labels in itertools.islice(self._batches, num_steps):
            self._step(images, labels)

    def _epochs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            for chosen in torch.randperm(len(self._images)).split(self._case.batch_size):
                yield self._images[chosen], self._labels[chosen]

    def _joint_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        fake_logits = self._discriminate(*self._generate())
        real_logits = self._discriminate(images, labels)
        discriminator_loss = _discriminator_loss(real_logits, fake_logits)
        gradients = torch.autograd.grad(discriminator_loss, self._parameters[1], retain_graph=True)
        self._update(0, torch.autograd.grad(_generator_loss(fake_logits), self._parameters[0]))
        self._update(1, gradients)

    def _alternating_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.no_grad():
            fakes, fake_labels = self._generate()
        fake_logits = self._discriminate(fakes, fake_labels)
        loss = _discriminator_loss(self._discriminate(images, labels), fake_logits)
        self._update(1, torch.autograd.grad(loss, self._parameters[1]))
        loss = _generator_loss(self._discriminate(*self._generate()))
        self._update(0, torch.autograd.grad(loss, self._parameters[0]))

    def _generate(self) -> tuple[torch.Tensor, torch.Tensor]:
        latents = torch.randn(self._case.batch_size, self._case.config.latent_dim)
        labels = torch.randint(max(1, self._case.num_classes), (self._case.batch_size,))
        if self._case.num_classes:
            latents = torch.cat([latents, functional.one_hot(labels, self._case.num_classes)], dim=1)
        return self._generator(latents), labels

    def _discriminate(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self._case.num_classes:
            planes = functional.one_hot(labels, self._case.num_classes).to(images.dtype)[:, :, None, None]
            images = torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)
        return self._discriminator(images)

    def _update(self, index: int, gradients: tuple[torch.Tensor, ...]) -> None:
        for parameter, gradient in zip(self._parameters[index], gradients, strict=True):
            parameter.grad = gradient
        self._optimizers[index].step()


def _in_format(network: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    return network.to(memory_format=memory_format)


def _generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


def _discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    real = functional.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    return real + functional.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))


def _optimizer(case: Case, parameters: list[nn.Parameter], rate: float, fused: bool) -> torch.optim.Optimizer:
    if case.config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, alpha=0.9, eps=1e-7, foreach=fused)
    betas = (case.config.beta_1, case.config.beta_2)
    return torch.optim.Adam(parameters, rate, betas=betas, eps=1e-7, fused=fused)


def _count(network: nn.Module) -> int:
    tensors = itertools.chain(network.parameters(), network.buffers())
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())


def variants(case: Case) -> dict[str, Callable[[], Contender]]:
    """Returns variants for both memory formats (if there are convolutions) with the default and the fused optimizer."""
    formats = _MEMORY_FORMATS if case.config.architecture == "dcgan" else {"contiguous": torch.contiguous_format}
    quick = "foreach" if case.config.optimizer == "rmsprop" else "fused"
    return {
        f"{name}, {quick if fused else 'default'} optimizer": partial(PyTorch, case, memory_format, fused)
        for name, memory_format in formats.items()
        for fused in (False, True)
    }
