"""Wirings: `GAN` subclasses that say which networks exist and which phases a step runs."""

from trainer.gans.acgan import ACGAN
from trainer.gans.base import GAN
from trainer.gans.building import WIRINGS, from_config, traits, wiring
from trainer.gans.conditional import ConditionalGAN
from trainer.gans.cyclegan import CycleGAN
from trainer.gans.infogan import InfoGAN

__all__ = ["ACGAN", "GAN", "WIRINGS", "ConditionalGAN", "CycleGAN", "InfoGAN", "from_config", "traits", "wiring"]
