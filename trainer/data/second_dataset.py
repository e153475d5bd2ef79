"""Description of the training data of a config, in which a second dataset fits the first."""

from trainer.config import TrainConfig
from trainer.data.datasets import DatasetInfo, describe
from trainer.errors import ConfigError, count_of


def describe_training_data(config: TrainConfig) -> DatasetInfo:
    """Returns the description of the dataset of a config, limited to its classes, without reading images.

    Raises:
        ConfigError: If a name is unknown, or the second dataset does not fit the first one.
        DataError, StorageError: If a `dataset.json` cannot be read.
    """
    info = describe(config.dataset, config.padding).with_classes(config.class_numbers)
    if config.dataset_b is not None:
        check_second_dataset(config, info, describe(config.dataset_b, config.padding))
    return info


def check_second_dataset(config: TrainConfig, info: DatasetInfo, info_b: DatasetInfo) -> None:
    """Checks that the second dataset has the kind and the shape of the first: images, or pairs.

    Args:
        config: Config with both datasets.
        info: Description of the first dataset.
        info_b: Description of the second dataset.

    Raises:
        ConfigError: If it does not.
    """
    if info_b.input_channels and not info.input_channels:
        raise ConfigError(
            f"dataset_b={config.dataset_b} has pairs of images, and {config.dataset} has none; give two datasets "
            "without pairs, or two with pairs for --recipe=pix2pix."
        )
    if (info_b.input_channels, info_b.image_shape) != (info.input_channels, info.image_shape):
        options = (
            "--image_size, --channels and --input_channels" if info.input_channels else "--image_size and --channels"
        )
        raise ConfigError(
            f"dataset_b={config.dataset_b} has {_describe_images(info_b)}, but {config.dataset} has "
            f"{_describe_images(info)}; prepare both with the same {options}."
        )


def _describe_images(info: DatasetInfo) -> str:
    images = f"images of {'×'.join(map(str, info.image_shape))}"
    return f"{images} with inputs of {count_of(info.input_channels, 'channel')}" if info.input_channels else images
