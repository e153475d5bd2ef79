# The trainer and the server as one image: scripts/build_image.sh builds it, and `deploy` starts the server in it.
# REQUIREMENTS=requirements.lock leaves CUDA's libraries out. The digest makes every build start from the same bytes; to
# update it: docker buildx imagetools inspect python:3.11-slim-bookworm
FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

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
COPY benchmarks benchmarks
ENTRYPOINT ["python", "-m", "trainer.task"]
