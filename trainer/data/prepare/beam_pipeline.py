"""Preparation of the shards on Apache Beam: the elements of the pipeline are the numbers of the shards.

Each worker lists the source itself, so that the pipeline transfers no images and no lists, and a shard has the same
bytes as without Beam. The process that starts the pipeline holds the lease and writes `dataset.json`.
"""

import atexit
import contextlib
import dataclasses
import io
import logging
import re
import shlex
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from trainer.data.prepare.conversion_plan import ConversionOptions, ConversionPlan, plan_conversion
from trainer.data.prepare.convert import PartConversion, check_is_new
from trainer.data.prepare.fingerprint import conversion_fingerprint
from trainer.data.prepare.sharding import Part
from trainer.data.prepare.sources import Source
from trainer.errors import ConfigError, DataError, count_of, quote
from trainer.storage import is_remote, locate

_PORTABLE_RUNNERS = ("FlinkRunner", "PortableRunner", "SparkRunner")
"""Runners whose servers define further options."""
_USER_ERROR = re.compile(r"trainer\.errors\.\w+: (.+?)(?: \[while running .*)?$", re.MULTILINE)

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardJob:
    """Description of a conversion from which a worker can make any shard. It can be pickled.

    Attributes:
        open_source: Function that opens the source while a context is active.
        options: Options of the conversion. `num_processes` applies to each shard.
        out: Folder of the dataset, local or `gs://`.
        fingerprint: Fingerprint of the conversion.
    """

    open_source: Callable[[], AbstractContextManager[Source]]
    options: ConversionOptions
    out: str
    fingerprint: str

    def make_shard(self, index: int) -> None:
        """Writes a shard and its report. Repetitions write the same bytes.

        Args:
            index: Index of the shard.

        Raises:
            ConfigError: If the folder contains a dataset, or this worker has another list of images than the process
                that started the pipeline.
            DataError: If more images of the shard cannot be used than the options allow for the dataset.
            StorageError: If the source cannot be read, or the folder cannot be written.
        """
        out = locate(self.out)
        check_is_new(out)
        source, plan = _open(self)
        conversion = PartConversion(source, plan, self.options, out, Part(), lambda progress: None, self.fingerprint)
        conversion.write([index], lambda: None)
        _logger.info(f"Finished shard {index:,} of {plan.num_shards:,}.")


_open_sources: dict[str, tuple[Source, ConversionPlan]] = {}
"""Sources that are open in this process, and their plans, by fingerprint. All threads of a worker share them."""
_open_contexts = contextlib.ExitStack()
_opening = threading.Lock()


def _open(job: ShardJob) -> tuple[Source, ConversionPlan]:
    """Returns the source of a conversion and its plan. The source stays open until the process ends."""
    with _opening:
        if job.fingerprint not in _open_sources:
            with contextlib.ExitStack() as stack:
                source = stack.enter_context(job.open_source())
                plan = plan_conversion(source, job.options)
                if conversion_fingerprint(source, plan) != job.fingerprint:
                    raise ConfigError(
                        f"a worker that makes shards of out={job.out} has another list of images, or another version "
                        "of Pillow, than the process that started it; do not change the source meanwhile, and install "
                        "the same packages on all workers."
                    )
                _open_contexts.enter_context(stack.pop_all())
            _open_sources[job.fingerprint] = source, plan
        return _open_sources[job.fingerprint]


@atexit.register
def _close() -> None:
    """Closes the sources that are open in this process."""
    with _opening:
        _open_sources.clear()
        _open_contexts.close()


def parse_options(text: str, paths: Sequence[str]) -> Any:
    """Returns the options of a pipeline, checked before anything is read.

    Args:
        text: Options as on a command line, such as `--runner=DirectRunner`.
        paths: Paths that the workers read or write.

    Returns:
        A `PipelineOptions` of Beam.

    Raises:
        ConfigError: If Beam is not installed, it rejects an option, the runner is missing, or a runner elsewhere would
            use a local path.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ModuleNotFoundError as error:
        raise ConfigError(
            "beam_options needs Apache Beam, which is not installed; run pip install 'gan-trainer[beam]' in an "
            "environment of its own, because it does not work with the extra vertex."
        ) from error
    setting, messages = f"beam_options={quote(text)}", io.StringIO()
    logging.basicConfig()  # Beam does so, too, but must not get `messages` as the stream
    try:
        with contextlib.redirect_stderr(messages):  # argparse prints the usage of all options
            options = PipelineOptions(shlex.split(text))
            known, all_options = options.get_all_options(), options.get_all_options(retain_unknown_options=True)
            beam.Pipeline(options=options)
    except (ImportError, RuntimeError, SystemExit, ValueError) as error:
        reason = (messages.getvalue() or str(error)).strip().rpartition("\n")[2].rpartition("error: ")[2]
        raise ConfigError(f"{setting} is rejected by Apache Beam ({quote(reason)}); correct it.") from error
    runner = known["runner"] or ""
    unknown = sorted(all_options.keys() - known.keys())
    if not runner:
        raise ConfigError(
            f"{setting} has no runner; add one, such as --runner=DirectRunner or --runner=DataflowRunner."
        )
    if unknown and not runner.startswith(_PORTABLE_RUNNERS):
        raise ConfigError(f"{setting} has {quote(unknown[0])}, which is no option of Apache Beam; correct it.")
    for path in paths:
        if "dataflow" in runner.lower() and not is_remote(path):
            raise ConfigError(
                f"{setting} starts workers that cannot read or write {quote(path)}; use gs://BUCKET/NAME."
            )
    return options


def run(job: ShardJob, shards: Sequence[int], options: Any) -> None:
    """Makes shards, and returns when all of them are finished.

    Args:
        job: Description of the conversion.
        shards: Indices of the shards.
        options: Result of `parse_options`.

    Raises:
        DataError: If the pipeline fails.
    """
    import apache_beam as beam

    _logger.info(f"Apache Beam makes {count_of(len(shards), 'shard')}.")
    try:
        with beam.Pipeline(options=options) as pipeline:
            numbers = pipeline | "Number the shards" >> beam.Create(shards)
            numbers | "Make each shard" >> beam.Map(job.make_shard)
    except Exception as error:  # runners raise errors of many types
        match = _USER_ERROR.search(str(error))
        reason = match[1] if match else f"{type(error).__name__}: {error}"
        raise DataError(
            f"the pipeline of Apache Beam has failed: {reason.rstrip('.')}. Finished shards stay; run the same command "
            "again."
        ) from error
    finally:
        _close()
