"""Where files lie: local paths and `gs://` behind one interface, and the names of a run directory."""

from trainer.storage.files import file_crc32c, file_sha256, read_json_lines, write_atomically
from trainer.storage.locations import Entry, Location, is_remote, local_path, locate
from trainer.storage.mirror import Mirror
from trainer.storage.run_directory import RunDirectory
from trainer.storage.safe_names import check_relative_name, check_sha256, path_below, quoted

__all__ = [
    "Entry",
    "Location",
    "Mirror",
    "RunDirectory",
    "check_relative_name",
    "check_sha256",
    "file_crc32c",
    "file_sha256",
    "is_remote",
    "local_path",
    "locate",
    "path_below",
    "quoted",
    "read_json_lines",
    "write_atomically",
]
