"""Feeds damaged files, documents and environments to everything that reads them, and counts the answers.

    python -m benchmarks.fuzz --seconds=600

Every input is either accepted or refused with a `TrainerError`. Any other exception, an answer that takes more than
`MAX_SECS`, and memory of more than `MAX_MEMORY_MIB` are failures: the command saves their inputs and exits with code 1.
The bounded run of the tests is `tests/test_fuzz.py`.
"""

import collections
import dataclasses
import faulthandler
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from absl import flags as absl_flags

from benchmarks.fuzz_targets import Target, make_targets
from trainer.cli import app
from trainer.errors import ConfigError, TrainerError, count_of, quote
from trainer.logging import install_handler

MAX_SECS = 10.0
"""Maximum time for an answer."""
MAX_MEMORY_MIB = 1024
"""Maximum growth of the resident memory in a run over one target."""
_TOKENS = (
    *(b"null", b"true", b"[]", b"{}", b"-1", b"0", b"1e999", b"-1e999", b"NaN", b"Infinity", b'""', b"1.5", b"9" * 400),
    *(
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"[" * 100 + b"]" * 100,
        b'"\\u0000"',
        b'"\\ud800"',
        b"\xff\xfe",
        b"\0",
        b"\n",
    ),
    *(
        b'"' + b"x" * 100_000 + b'"',
        b'"../../x"',
        b'"/etc/passwd"',
        b'"\x1b[2J"',
        b'"gs://"',
        b"2147483648",
        b"1" + b"0" * 30,
    ),
    *(
        b"\xef\xbb\xbf",
        b"&a [*a,*a]",
        b"!!python/object:os.system",
        b": ",
        b"\t",
        b"---\n",
        b"?",
        b"%",
        b"\r\n",
        b"step",
    ),
)
_NUMBERS = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\1\0",
    b"\1\0",
    b"\xff" * 8,
)


@dataclasses.dataclass
class Result:
    """Result of a run over one target.

    Attributes:
        num_accepted: Number of inputs that were accepted.
        num_refused: Number of inputs that were refused with a sentence.
        failures: Number of failures, and an input, by the description of the failure.
        memory_mib: Growth of the resident memory in MiB.
    """

    num_accepted: int = 0
    num_refused: int = 0
    failures: dict[str, tuple[int, bytes]] = dataclasses.field(default_factory=dict)
    memory_mib: float = 0.0

    def add_failure(self, description: str, content: bytes) -> None:
        """Counts a failure. Of equal failures, the shortest input is kept."""
        count, shortest = self.failures.get(description, (0, content))
        self.failures[description] = count + 1, min(shortest, content, key=len)


class _TooSlow(BaseException):
    """Raised in a call that takes too long. No handler of `Exception` stops it."""


def run(target: Target, seconds: float, seed: int = 0) -> Result:
    """Damages the seeds of a target for some seconds, and reads the results.

    Args:
        target: Target.
        seconds: Duration.
        seed: Seed of the damage.
    """
    result, rng = Result(), random.Random(f"{target.name} {seed}")
    previous = signal.signal(signal.SIGALRM, _raise_too_slow)
    memory = _peak_mib()
    end = time.monotonic() + seconds
    try:
        for content in _inputs(target, rng):
            faulthandler.dump_traceback_later(6 * MAX_SECS, exit=True)  # for code that no signal interrupts
            signal.setitimer(signal.ITIMER_REAL, MAX_SECS)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    target.read(content)
                result.num_accepted += 1
            except TrainerError as error:
                result.num_refused += 1
                if "\n" in str(error) or len(str(error)) > 5000:
                    result.add_failure("a message that is not one short line", content)
            except _TooSlow:
                result.add_failure(f"more than {MAX_SECS:g} s", content)
            except Exception as error:
                frame = traceback.extract_tb(error.__traceback__)[-1]
                result.add_failure(f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}", content)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            if time.monotonic() > end:
                break
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, previous)
    result.memory_mib = _peak_mib() - memory
    if result.memory_mib > MAX_MEMORY_MIB:
        result.add_failure(f"{result.memory_mib:,.0f} MiB of memory", b"")
    return result


def _raise_too_slow(*_: object) -> None:
    raise _TooSlow


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _inputs(target: Target, rng: random.Random) -> Iterator[bytes]:
    yield from target.seeds
    yield from (b"", b"\0", b"null", b"[]", b"{}", b"\xff\xfe\0", b"[" * 100_000, b'{"a":' * 100_000, b"x" * 1_000_000)
    while True:
        content = rng.choice(target.seeds)
        for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
            content = _damage(content, rng)
        yield content


def _damage(content: bytes, rng: random.Random) -> bytes:
    """Returns a content with one change: of bytes, of a number, of a part, or of a value in a text."""
    start = rng.randrange(len(content) + 1)
    stop = min(len(content), start + rng.choice([1, 1, 2, 4, 8, 30, 300]))
    match rng.randrange(8):
        case 0:
            return content[:start]
        case 1:
            return content[:start] + content[stop:]
        case 2:
            return content[:stop] + content[start:]
        case 3:
            return content[:start] + rng.choice(_TOKENS) + content[stop:]
        case 4:
            number = rng.choice(_NUMBERS)
            return content[:start] + number + content[start + len(number) :]
        case 5:
            return content[:start] + rng.randbytes(stop - start) + content[stop:]
        case 6:
            return _replace_value(content, rng)
    return (
        content[:start]
        + bytes(byte ^ (1 << rng.randrange(8)) for byte in content[start : start + 1])
        + content[start + 1 :]
    )


def _replace_value(content: bytes, rng: random.Random) -> bytes:
    """Replaces what follows a colon, up to the next comma, bracket or line break."""
    colons = [index for index, byte in enumerate(content[:20_000]) if byte == ord(":")]
    if not colons:
        return content
    start = rng.choice(colons) + 1
    stop = next((index for index in range(start, len(content)) if content[index] in b",]}\n"), len(content))
    return content[:start] + b" " + rng.choice(_TOKENS) + content[stop:]


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_float("seconds", 600.0, "Duration of the whole run.", lower_bound=0.0, flag_values=values)
    absl_flags.DEFINE_integer("seed", 0, "Seed of the damage.", flag_values=values)
    absl_flags.DEFINE_string("only", "", "Regular expression for the names of the targets.", flag_values=values)
    absl_flags.DEFINE_string("out", "runs/fuzz", "Folder for the inputs of failures.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Runs all targets. A failure is an error."""
    install_handler(uses_stderr=True)  # the targets log warnings
    out, num_failures = Path(values.out), 0
    with tempfile.TemporaryDirectory() as folder:
        targets = [target for target in make_targets(Path(folder)) if re.search(values.only, target.name)]
        if not targets:
            raise ConfigError(f"only={quote(values.only)} matches no target; omit it for all.")
        print(f"{'target':32} {'inputs':>9} {'accepted':>9} {'failures':>9} {'MiB':>6}")
        for target in targets:
            result = run(target, values.seconds / len(targets), values.seed)
            counts = collections.Counter({name: count for name, (count, _) in result.failures.items()})
            num_inputs = result.num_accepted + result.num_refused + counts.total()
            numbers = f"{num_inputs:9,} {result.num_accepted:9,} {counts.total():9,} {result.memory_mib:6,.0f}"
            print(f"{target.name:32} {numbers}")
            for index, (description, (count, content)) in enumerate(result.failures.items()):
                out.mkdir(parents=True, exist_ok=True)
                path = out / f"{target.name.replace(' ', '-')}-{index}"
                path.write_bytes(content)
                print(f"    {count:,} times {description}: {path}")
            num_failures += counts.total()
    if num_failures:
        raise TrainerError(f"{count_of(num_failures, 'input')} failed; the shortest ones are in {out}.")


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
