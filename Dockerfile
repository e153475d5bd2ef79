# The trainer as an image: scripts/build_image.sh builds it. REQUIREMENTS=requirements.lock leaves CUDA's libraries out.
FROM python:3.11-slim

ARG REQUIREMENTS=requirements-cuda.lock
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /src
COPY ${REQUIREMENTS} requirements.lock
RUN pip install --require-hashes --only-binary=:all: -r requirements.lock
COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE CHANGELOG.md ./
COPY trainer trainer
RUN pip install --no-deps --no-build-isolation .

# As root: the folder of a tuning job's metrics is root's on Vertex AI (GoogleCloudPlatform/cloudml-hypertune#6).
WORKDIR /home/trainer
ENTRYPOINT ["python", "-m", "trainer.task"]
