"""The `explore` command."""

from absl import flags as absl_flags

from trainer.cli import app
from trainer.config import flags as config_flags
from trainer.logging import print_line, quiet_import

_USAGE = """Serves a page on this machine that shows the images of a run's generator at any point of its latent space.

  {command} --job_dir=DIRECTORY [--port=8800] [--checkpoint=best|latest|STEP]

DIRECTORY is a run directory, local or gs://BUCKET/NAME. Open the printed address in a browser on this machine. Ctrl-C
ends the command.
"""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "Run directory.", required=True, flag_values=values)
    absl_flags.DEFINE_integer(
        "port", 0, "Port on 127.0.0.1. 0: any free one.", lower_bound=0, upper_bound=65535, flag_values=values
    )
    config_flags.define_checkpoint(values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Serves the page until Ctrl-C."""
    with quiet_import():
        from trainer.data import describe
        from trainer.explore.points import Explorer
        from trainer.explore.server import ExploreServer
        from trainer.training import restore
    config, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    has_names = gan.num_classes and not gan.labels_are_codes  # a code has no name
    class_names = describe(config.dataset).class_names if has_names else ()
    explorer = Explorer(gan, class_names, f"{config.recipe} at step {manifest.step:,}: {values.job_dir}")
    server = ExploreServer(explorer, values.port)
    try:
        print_line(f"Open {server.address} in a browser on this machine. Ctrl-C ends the server.")
        server.serve_forever()
    except KeyboardInterrupt:
        print_line("Stopped.")
    finally:
        server.finish()


main = app.command(_USAGE, define_flags, run_command)
