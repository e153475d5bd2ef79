"""The DCGAN of PyTorch tutorials on images of 32×32 or 64×64, trained for a time: `python -m ... --help`.

Source: arXiv 1511.06434, in the form of PyTorch's DCGAN tutorial: batch norm in both networks, N(0, 0.02) initial
weights, binary cross-entropy, Adam 2e-4 with beta_1 0.5, batch 128, the same fake images for both networks. It mirrors
images like the recipe `photos`. Before the time begins, it chooses the faster of float32 and bfloat16 autocast.

At each of some moments it writes `images-N.npz` with the array x, uint8 [M, H, W, C], and at the end `result.json`. The
time to generate these images does not count.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

_LATENTS, _WIDTH, _BATCH, _LEARNING_RATE, _BETA_1 = 100, 64, 128, 2e-4, 0.5
_TRIAL_STEPS = 6


class DCGAN:
    """Networks, optimizers and data.

    Args:
        images: uint8 [N, H, W, C] with H = W, a power of two from 16.
    """

    def __init__(self, images: np.ndarray):
        size, channels = images.shape[1], images.shape[3]
        if images.shape[1] != images.shape[2] or size < 16 or size & (size - 1):
            raise ValueError(
                f"images of {images.shape[1]}×{images.shape[2]}; this network needs 16×16, 32×32, 64×64, …"
            )
        self.generator = _initialized(_generator(size, channels))
        self.discriminator = _initialized(_discriminator(size, channels))
        self._images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self._optimizers = [
            torch.optim.Adam(network.parameters(), _LEARNING_RATE, betas=(_BETA_1, 0.999), fused=True)
            for network in (self.generator, self.discriminator)
        ]
        self.precision = "float32"

    def choose_precision(self) -> None:
        """Keeps the faster precision. The networks and optimizers are as before afterwards."""
        seconds = {}
        for precision in ("float32", "bfloat16"):
            trial = DCGAN(np.zeros((_BATCH, *_channels_last(self._images[:1]).shape[1:]), np.uint8))
            trial.precision = precision
            trial.step()
            started = time.perf_counter()
            for _ in range(_TRIAL_STEPS):
                trial.step()
            seconds[precision] = time.perf_counter() - started
        self.precision = min(seconds, key=seconds.__getitem__)

    def step(self) -> None:
        """Trains the discriminator, then the generator, on one batch."""
        chosen = self._images[torch.randint(len(self._images), (_BATCH,))]
        real = chosen.to(torch.float32, memory_format=torch.channels_last) / 127.5 - 1.0
        real = torch.where(torch.rand(_BATCH, 1, 1, 1) < 0.5, real.flip(3), real)
        latents = torch.randn(_BATCH, _LATENTS, 1, 1)
        with self._autocast():
            fake = self.generator(latents)
            real_logits, fake_logits = self.discriminator(real), self.discriminator(fake.detach())
        self._update(1, _cross_entropy(real_logits, 1.0) + _cross_entropy(fake_logits, 0.0))
        with self._autocast():
            logits = self.discriminator(fake)
        self._update(0, _cross_entropy(logits, 1.0))

    def sample(self, num_images: int, seed: int) -> np.ndarray:
        """Returns fake images, uint8 [N, H, W, C], of the generator with its moving statistics."""
        random = torch.Generator().manual_seed(seed)
        latents = torch.randn(num_images, _LATENTS, 1, 1, generator=random)
        self.generator.eval()
        with torch.no_grad():
            images = torch.cat([self.generator(batch) for batch in latents.split(250)])
        self.generator.train()
        return _channels_last(((images + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)).numpy()

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16")

    def _update(self, index: int, loss: torch.Tensor) -> None:
        self._optimizers[index].zero_grad(set_to_none=True)
        loss.backward()
        self._optimizers[index].step()


def _channels_last(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 2, 3, 1).contiguous()


def _cross_entropy(logits: torch.Tensor, target: float) -> torch.Tensor:
    logits = logits.float()
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _generator(size: int, channels: int) -> nn.Module:
    filters = _WIDTH * size // 8
    layers = [nn.ConvTranspose2d(_LATENTS, filters, 4, bias=False), nn.BatchNorm2d(filters), nn.ReLU(True)]
    while filters > _WIDTH:
        layers += [nn.ConvTranspose2d(filters, filters // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(filters // 2)]
        layers += [nn.ReLU(True)]
        filters //= 2
    return nn.Sequential(*layers, nn.ConvTranspose2d(filters, channels, 4, 2, 1, bias=False), nn.Tanh())


def _discriminator(size: int, channels: int) -> nn.Module:
    layers = [nn.Conv2d(channels, _WIDTH, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, True)]
    filters = _WIDTH
    while filters < _WIDTH * size // 8:
        layers += [nn.Conv2d(filters, filters * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(filters * 2)]
        layers += [nn.LeakyReLU(0.2, True)]
        filters *= 2
    return nn.Sequential(*layers, nn.Conv2d(filters, 1, 4, bias=False), nn.Flatten())


def _initialized(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return network.to(memory_format=torch.channels_last)


def main() -> None:
    """Trains for a time and writes the images of each moment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help=".npy file: uint8 [N, H, W, C]")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seconds", type=float, required=True, help="time to train")
    parser.add_argument("--clock", choices=["processor", "wall"], default="wall", help="clock of --seconds")
    parser.add_argument("--moments", type=int, default=6, help="number of moments, the last at the end")
    parser.add_argument("--num_images", type=int, default=5000, help="number of images per moment")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, batches and latents")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    now = time.perf_counter if arguments.clock == "wall" else time.process_time
    gan = DCGAN(np.load(arguments.images))
    gan.choose_precision()
    start, skipped, num_steps = now(), 0.0, 0
    moments: list[dict[str, float | str]] = []
    for number in range(1, arguments.moments + 1):
        while now() - start - skipped < arguments.seconds * number / arguments.moments:
            gan.step()
            num_steps += 1
        seconds, pause = now() - start - skipped, now()
        name = f"images-{num_steps:08}.npz"
        np.savez_compressed(arguments.out / name, x=gan.sample(arguments.num_images, arguments.seed))
        moments.append({"step": num_steps, "seconds": seconds, "images": name})
        skipped += now() - pause
    result = {
        "precision": gan.precision,
        "batch": _BATCH,
        "steps": num_steps,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "moments": moments,
    }
    (arguments.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
