"""Models: `GAN` subclasses that say which networks exist and which phases a step runs."""

from trainer.models.acgan import ACGAN
from trainer.models.conditional import ConditionalGAN
from trainer.models.cyclegan import CycleGAN
from trainer.models.factory import from_config, traits, with_compute_settings
from trainer.models.fastgan import FastGAN
from trainer.models.gan import GAN
from trainer.models.infogan import InfoGAN
from trainer.models.pix2pix import Pix2Pix
from trainer.models.registry import MODELS, register_model
from trainer.models.stylegan2 import ConditionalStyleGAN2, StyleGAN2
from trainer.models.translator import ImageTranslator

__all__ = [
    "ACGAN",
    "GAN",
    "MODELS",
    "ConditionalGAN",
    "ConditionalStyleGAN2",
    "CycleGAN",
    "FastGAN",
    "ImageTranslator",
    "InfoGAN",
    "Pix2Pix",
    "StyleGAN2",
    "from_config",
    "register_model",
    "traits",
    "with_compute_settings",
]
