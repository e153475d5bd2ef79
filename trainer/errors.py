"""The exceptions that users meet: each message is one sentence with what was got, what was expected, what to do."""


class TrainerError(Exception):
    """A mistake that the user can mend. The command line prints its message and exits with `exit_code`."""

    exit_code = 1


class ConfigError(TrainerError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class DataError(TrainerError, ValueError):
    """Images or labels that cannot be read or do not fit the job."""


class StorageError(TrainerError):
    """A file or a bucket that cannot be read or written."""


class MissingError(StorageError):
    """A file or an object that does not exist."""


class NetworkError(TrainerError, ValueError):
    """A generator, discriminator, loss or optimiser that cannot be trained together."""


class CheckpointError(TrainerError):
    """A run directory that cannot be written, resumed or read."""


class DivergenceError(TrainerError):
    """Training produced a value that is not finite."""


class JobError(TrainerError):
    """A job that Vertex AI refuses, or that ended without success.

    Args:
        message: The sentence.
        exit_code: That of the process that decided it, where it ran here.
    """

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


class JobStopped(JobError):
    """A job that runs here and was told to end from outside."""


class Preempted(TrainerError):
    """Training stopped on SIGTERM, after its state was committed."""

    exit_code = 143


class Interrupted(TrainerError):
    """The user stopped waiting for something that goes on elsewhere."""

    exit_code = 130
