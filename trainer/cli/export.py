"""The `export` command."""

from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import flags as config_flags
from trainer.config.choices import ModelFormat, Precision
from trainer.errors import ConfigError
from trainer.logging import print_line, quiet_import
from trainer.report.model_card import card_files
from trainer.storage import RunDirectory, locate, scratch_folder
from trainer.storage.run_directory import CONFIG, EVENTS, METRICS

_USAGE = """Writes a run's generator as a model for other programs, with a MODEL_CARD.md and samples.

  {command} --job_dir=DIRECTORY --out=FOLDER [--format=FORMAT] [--checkpoint=best|latest|STEP]

  savedmodel  for `serve`, TensorFlow Serving, and Vertex AI
  keras       generator.keras; loading it needs the layers of this package
  onnx        generator.onnx, for onnxruntime; pip install 'gan-trainer[onnx]'
  litert      generator.tflite, for LiteRT; pip install 'gan-trainer[litert]'

Inputs, for N instances, latents of size Z, and K classes:

  latents: float32 [N, Z]; with classes, labels: int32 [N] in [0, K-1]; with K conditions, labels: float32 [N, K]
  -> images: uint8 [N, H, W, C]
  StyleGAN2: latents: float32 [N, Z+1], whose last column is the truncation in [0, 1]; 1 changes nothing
  CycleGAN: images of domain A, uint8 -> images of domain B
  pix2pix: images that are the inputs of pairs, uint8 -> images, uint8

All formats but savedmodel compute in float32, and do not check labels. The written model is compared with TensorFlow on
64 images. If a pixel differs by more than 1 of 255, the command fails and writes nothing.

A SavedModel has these inputs in the signature serving_default, and two other signatures, except for models that
translate images (CycleGAN, pix2pix):

  image            seed: int64 [N] in [0, 99999999]; truncation: float32 [N] in [0, 1], or -1 for none; with classes,
                   label: int32 [N] in [-1, K-1], where -1 stands for each class in turn
                   -> png_bytes: string [N], each the image that `generate --seeds` writes
  sample           seed: int64 [N]; number: int32 [N] in [1, 64]; with classes, label: int32 [N] in
                   [-1, K-1]
                   -> png_bytes: string [N], each a grid of `number` images

With conditions, label is the number of a vector of the training set, as docs/serving.md describes. The two signatures
reject values that are out of range. Every value in a request belongs to an instance, and values whose names end in
_bytes are base64:

  {"signature_name": "sample", "instances": [{"seed": 1, "number": 9}]}
"""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "Run directory.", required=True, flag_values=values)
    absl_flags.DEFINE_string(
        "out", None, "Folder to write, local or gs://. It must be empty.", required=True, flag_values=values
    )
    absl_flags.DEFINE_enum(
        "format", ModelFormat.SAVED_MODEL.value, ModelFormat.values(), "Format of the model.", flag_values=values
    )
    config_flags.define_checkpoint(values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Writes the model."""
    out, model_format = locate(values.out), ModelFormat(values.format)
    if out.exists():
        raise ConfigError(f"--out={out} is a file; give a folder.")
    if next(iter(out.entries()), None) is not None:
        raise ConfigError(f"--out={out} already has files; give another folder.")
    with quiet_import():
        from trainer.serving import formats, saved_model
        from trainer.training import restore
    formats.check_installed(model_format)

    precision = None if model_format == ModelFormat.SAVED_MODEL else Precision.FLOAT32
    _, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe, precision)
    with RunDirectory(values.job_dir).open(only={CONFIG, METRICS, EVENTS}) as directory:
        card = card_files(directory, gan, model_format, manifest.step, saved_model.inputs_of(gan))
    with scratch_folder() as scratch:
        folder = scratch / "model"
        difference = formats.write(gan, model_format, folder, manifest.step, card)
        saved_model.publish(folder, out, formats.file_of(model_format))
    comparison = (
        f"differ from those of TensorFlow by at most {difference} of 255, measured on {formats.NUM_COMPARED} images"
        if difference is not None
        else "were not compared with those of TensorFlow, because it has random layers"
    )
    print_line(f"Wrote the generator at step {manifest.step} to {out}. Its images {comparison}.")


main = app.command(_USAGE, define_flags, run_command)
