"""Storage: local paths and `gs://` behind one interface, and the file names of a run directory."""

from trainer.storage import documents
from trainer.storage.base import Location, StorageEntry
from trainer.storage.documents import check_json, parse_json, read_json, read_json_lines
from trainer.storage.local import check_new_file
from trainer.storage.local_files import file_crc32c, file_sha256, scratch_folder, write_atomically
from trainer.storage.mirror import Mirror
from trainer.storage.resolve import (
    cache_folder,
    has_bucket,
    is_remote,
    local_path,
    locate,
    parse_path,
    path_text,
    place_of,
    read_named_file,
    resolve_mount,
    state_absence,
    without_mount,
)
from trainer.storage.run_directory import RunDirectory
from trainer.storage.safe_names import check_relative_name, check_sha256, path_below, paths_below

__all__ = [
    "Location",
    "Mirror",
    "RunDirectory",
    "StorageEntry",
    "cache_folder",
    "check_json",
    "check_new_file",
    "check_relative_name",
    "check_sha256",
    "documents",
    "file_crc32c",
    "file_sha256",
    "has_bucket",
    "is_remote",
    "local_path",
    "locate",
    "parse_json",
    "parse_path",
    "path_below",
    "path_text",
    "paths_below",
    "place_of",
    "read_json",
    "read_json_lines",
    "read_named_file",
    "resolve_mount",
    "scratch_folder",
    "state_absence",
    "without_mount",
    "write_atomically",
]
