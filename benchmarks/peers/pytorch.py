"""PyTorch: batches are indexed from a tensor in memory; `torch.autograd.grad` computes each phase's gradients.

Networks run under `torch.autocast` in bfloat16, losses and penalties in float32. `torch.compile` compiles the networks.
Its compiled backward pass has no gradient of its own, so that a compiled penalty differentiates inside of the compiled
function, with `torch.func.grad`.

Legend: `B` batch size, `C H W` image shape, `Z` latent size, `K` classes.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.cases import Case, Contender, VariantError
from benchmarks.peers import cpp_compiler, pytorch_networks
from benchmarks.peers.pytorch_path_length import PathLengthPenalty

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Form of a PyTorch program.

    Attributes:
        memory_format: `contiguous` or `channels_last`.
        fused: Whether the optimizer updates all weights in one call.
        precision: Precision of the networks: float32 or bfloat16.
        compiled: Whether `torch.compile` compiles the networks.
    """

    memory_format: str
    fused: bool
    precision: str
    compiled: bool = False


class PyTorch:
    """Networks, optimizers and training loop of a case."""

    def __init__(self, case: Case, settings: Settings):
        if _DEVICE == "cuda":
            torch.set_default_device(_DEVICE)
            torch.set_float32_matmul_precision("high")  # TensorFloat-32, as in TensorFlow
        self._case, self.settings = case, settings
        self.precision = settings.precision
        memory_format = _MEMORY_FORMATS[settings.memory_format]
        networks = [network.to(memory_format=memory_format) for network in pytorch_networks.build(case)]
        self._parameters = [list(network.parameters()) for network in networks]
        self._named_parameters = dict(networks[1].named_parameters())
        self.num_parameters = _count(networks[0]), _count(networks[1])
        self._generator_penalty = _generator_penalty(case, networks[0], settings)
        self._generator, self._discriminator = networks
        self._differentiate = self._differentiate_eagerly
        if settings.compiled:
            torch._functorch.config.donated_buffer = False  # the simultaneous step runs a backward pass twice
            self._generator, self._discriminator = (torch.compile(network) for network in networks)
            self._differentiate = torch.compile(partial(_differentiate_functionally, networks[1]))
        rates = case.config.generator_learning_rate, case.config.discriminator_learning_rate
        self._optimizers = [
            _optimizer(case, parameters, rate, settings.fused)
            for parameters, rate in zip(self._parameters, rates, strict=True)
        ]
        images = torch.from_numpy(case.float_images).permute(0, 3, 1, 2)
        self._images = images.contiguous(memory_format=memory_format).to(_DEVICE)
        self._labels = torch.from_numpy(case.labels).long().to(_DEVICE)
        self._batches = self._epochs()
        self._step = self._joint_step if case.config.update_order == "simultaneous" else self._alternating_step
        self._num_steps = 0

    def run(self, num_steps: int) -> None:
        """Takes some steps.

        Raises:
            VariantError: If the code that `torch.compile` has made does not fit its own assumptions.
        """
        for images, labels in itertools.islice(self._batches, num_steps):
            try:
                self._step(images, labels)
            except AssertionError as error:
                if not self.settings.compiled:
                    raise
                raise VariantError(str(error).partition("\n")[0]) from error
            self._num_steps += 1
        if _DEVICE == "cuda":
            torch.cuda.synchronize()

    def _epochs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            for chosen in torch.randperm(len(self._images)).split(self._case.batch_size):
                yield self._images[chosen], self._labels[chosen]

    def _joint_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        generator_loss_of, discriminator_loss_of = _LOSSES[self._case.config.loss]
        names, weight = self._case.config.penalties, self._case.config.penalty_weight
        fake_logits, fake_norms = self._logits_and_norms(*self._generate(), "r2" in names)
        real_logits, real_norms = self._logits_and_norms(images, labels, "r1" in names)
        discriminator_loss = discriminator_loss_of(real_logits, fake_logits) + weight / 2 * (real_norms + fake_norms)
        gradients = torch.autograd.grad(discriminator_loss, self._parameters[1], retain_graph=True)
        generator_loss = generator_loss_of(real_logits, fake_logits) + self._generator_penalty(self._num_steps)
        self._update(0, torch.autograd.grad(generator_loss, self._parameters[0]))
        self._update(1, gradients)

    def _alternating_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        generator_loss_of, discriminator_loss_of = _LOSSES[self._case.config.loss]
        with torch.no_grad():
            fakes, fake_labels = self._generate()
        config = self._case.config
        names = config.penalties if self._num_steps % config.penalty_every_steps == 0 else ()
        fake_logits, fake_norms = self._logits_and_norms(fakes, fake_labels, "r2" in names)
        real_logits, real_norms = self._logits_and_norms(images, labels, "r1" in names)
        weight = config.penalty_weight * config.penalty_every_steps
        loss = discriminator_loss_of(real_logits, fake_logits) + weight / 2 * (real_norms + fake_norms)
        self._update(1, torch.autograd.grad(loss, self._parameters[1]))
        fake_logits = self._discriminate(*self._generate())
        real_logits = fake_logits
        if config.loss == "relativistic":
            with torch.no_grad():
                real_logits = self._discriminate(images, labels)
        loss = generator_loss_of(real_logits, fake_logits) + self._generator_penalty(self._num_steps)
        self._update(0, torch.autograd.grad(loss, self._parameters[0]))

    def _generate(self) -> tuple[torch.Tensor, torch.Tensor]:
        latents = torch.randn(self._case.batch_size, self._case.config.latent_dim)
        labels = torch.randint(max(1, self._case.num_classes), (self._case.batch_size,))
        if self._case.num_classes:
            latents = torch.cat([latents, functional.one_hot(labels, self._case.num_classes)], dim=1)
        with self._autocast():
            return self._generator(latents).float(), labels

    def _discriminate(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self._case.num_classes:
            planes = functional.one_hot(labels, self._case.num_classes).to(images.dtype)[:, :, None, None]
            images = torch.cat([images, planes.expand(-1, -1, *images.shape[2:])], dim=1)
        with self._autocast():
            return self._discriminator(images).float()

    def _logits_and_norms(self, images: torch.Tensor, labels: torch.Tensor, has_norms: bool) -> tuple[Any, Any]:
        """Returns logits [B, 1], and the mean squared norm of their gradients, or 0."""
        if not has_norms:
            return self._discriminate(images, labels), 0.0
        if self._case.num_classes:
            raise NotImplementedError("penalties with labels")
        logits, gradients = self._differentiate(self._named_parameters, images, self.precision)
        return logits, gradients.square().sum(dim=(1, 2, 3)).mean()

    def _differentiate_eagerly(
        self, parameters: dict[str, nn.Parameter], images: torch.Tensor, precision: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns logits [B, 1], and their gradients [B, C, H, W] with a graph of their own."""
        del parameters, precision
        if not images.requires_grad:
            images = images.detach().requires_grad_()
        with self._autocast():
            logits = self._discriminator(images).float()
        return logits, torch.autograd.grad(logits.sum(), images, create_graph=True)[0]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(_DEVICE, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _update(self, index: int, gradients: tuple[torch.Tensor, ...]) -> None:
        for parameter, gradient in zip(self._parameters[index], gradients, strict=True):
            parameter.grad = gradient
        self._optimizers[index].step()


def _generator_penalty(case: Case, generator: nn.Module, settings: Settings) -> Callable[[int], torch.Tensor | float]:
    """Returns a function from the step to the generator's penalty, which is 0 for most models."""
    if case.model_options is None:
        return lambda step: 0.0
    num_images = case.batch_size if case.batch_size % 2 else case.batch_size // 2
    height, width, channels = case.image_shape
    return PathLengthPenalty(
        generator,
        case.model_options,
        (num_images, case.config.latent_dim),
        (channels, height, width),
        settings.precision,
        compiled=settings.compiled,
    )


def _differentiate_functionally(
    network: nn.Module, parameters: dict[str, nn.Parameter], images: torch.Tensor, precision: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns logits [B, 1] and their gradients [B, C, H, W], in a form that `torch.compile` can differentiate."""

    def sum_of_logits(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(_DEVICE, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = torch.func.functional_call(network, parameters, (images,)).float()
        return logits.sum(), logits

    gradients, logits = torch.func.grad(sum_of_logits, has_aux=True)(images)
    return logits, gradients


def _cross_entropy_generator(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    del real_logits
    return functional.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))


def _cross_entropy_discriminator(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    real = functional.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    return real + functional.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))


def _relativistic_generator(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    return functional.softplus(real_logits - fake_logits).mean()


def _relativistic_discriminator(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    return functional.softplus(fake_logits - real_logits).mean()


def _hinge_generator(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    del real_logits
    return -fake_logits.mean()


def _hinge_discriminator(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    return functional.relu(1.0 - real_logits).mean() + functional.relu(1.0 + fake_logits).mean()


_LOSSES = {
    "non_saturating": (_cross_entropy_generator, _cross_entropy_discriminator),
    "relativistic": (_relativistic_generator, _relativistic_discriminator),
    "hinge": (_hinge_generator, _hinge_discriminator),
}


def _optimizer(case: Case, parameters: list[nn.Parameter], rate: float, fused: bool) -> torch.optim.Optimizer:
    epsilon = case.config.epsilon
    if case.config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, alpha=0.9, eps=epsilon, foreach=fused)
    betas = (case.config.beta_1, case.config.beta_2)
    return torch.optim.Adam(parameters, rate, betas=betas, eps=epsilon, fused=fused)


def _count(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values() if tensor.is_floating_point())


def variants(case: Case, precisions: Sequence[str]) -> dict[str, Callable[[], Contender]]:
    """Returns eager variants for both memory formats (if there are convolutions) and both forms of the optimizer."""
    formats = ("contiguous",) if case.config.architecture == "mlp" else tuple(_MEMORY_FORMATS)
    every = [
        Settings(name, fused, precision) for name in formats for fused in (False, True) for precision in precisions
    ]
    return {_label(case, settings): partial(PyTorch, case, settings) for settings in every}


def refinements(case: Case, fastest: PyTorch) -> dict[str, Callable[[], Contender]]:
    """Returns the compiled form of the fastest eager variant, if there is a C++ compiler."""
    if cpp_compiler() is None:
        return {}
    settings = dataclasses.replace(fastest.settings, compiled=True)
    return {_label(case, settings): partial(PyTorch, case, settings)}


def _label(case: Case, settings: Settings) -> str:
    quick = "foreach" if case.config.optimizer == "rmsprop" else "fused"
    optimizer = f"{quick if settings.fused else 'default'} optimizer"
    form = "torch.compile" if settings.compiled else "eager"
    return f"{form}, {settings.memory_format}, {optimizer}, {settings.precision}"
