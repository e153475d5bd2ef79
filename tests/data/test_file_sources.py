"""Images in separate files, local or in a bucket: what counts as a bad image, and what ends the command."""

import contextlib
import errno
import io
import os
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pictures import image
from refusals import check_refusal

from trainer.data.prepare import contents
from trainer.data.prepare.duplicates import drop_duplicates
from trainer.data.prepare.encoding import encode_images
from trainer.data.prepare.pixels import Target
from trainer.data.prepare.sources import open_source
from trainer.errors import DataError, StorageError
from trainer.storage import locate

AS_IT_IS = Target(None, None, 3, "none")


LARGE = image(3, size=(1024, 1024))
"""An image that is copied to a temporary file."""
assert len(LARGE) > 2**20
FILES = {"a.png": image(1), "b.png": image(1), "c.png": LARGE, "d.png": LARGE}


def fill(location, files):
    for name, content in files.items():
        (location / name).write_bytes(content)


def write_list(folder, kind, columns):
    """Writes a list of images, and returns its name."""
    file = folder / f"list.{kind}"
    if kind == "csv":
        rows = zip(*columns.values(), strict=True)
        file.write_bytes("\n".join(map(",".join, [columns, *rows])).encode())
    else:
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer)
        file.write_bytes(buffer.getvalue())
    return str(file)


def failing(name, status):
    return lambda request: status if request.object_name.endswith(name) else None


@pytest.mark.parametrize("name", FILES)
def test_an_image_that_a_bucket_refuses_is_not_a_bad_image(name, bucket, proxy, tmp_path):
    fill(locate(bucket), FILES)
    with open_source(bucket) as source:
        assert [result.problem for result in encode_images(source, range(4), AS_IT_IS, 1, tmp_path)] == [""] * 4
        assert drop_duplicates(source, np.arange(4))[0].tolist() == [0, 2]
        proxy.policy = failing(name, 403)
        check_refusal(lambda: list(encode_images(source, range(4), AS_IT_IS, 1, tmp_path)), StorageError, name)
        check_refusal(lambda: drop_duplicates(source, np.arange(4)), StorageError, name)


def test_an_image_that_was_deleted_is_a_bad_image(bucket, tmp_path):
    fill(locate(bucket), FILES)
    with open_source(bucket) as source:
        locate(bucket).delete(["a.png", "c.png"])
        problems = [result.problem for result in encode_images(source, range(4), AS_IT_IS, 1, tmp_path)]
    assert [bool(problem) for problem in problems] == [True, False, True, False]


def test_a_file_that_is_too_large_is_a_bad_image(bucket, monkeypatch):
    fill(locate(bucket), FILES)
    monkeypatch.setattr("trainer.data.prepare.sources.base.MAX_FILE_BYTES", 1000)
    with open_source(bucket) as source:
        assert source.read(0) == FILES["a.png"]
        check_refusal(lambda: source.read(2), DataError, f"{len(LARGE):,}")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("at", ["open", "read"])
def test_a_local_file_that_the_system_cannot_read_is_not_a_bad_image(number, at, tmp_path, monkeypatch):
    fill(locate(str(tmp_path)), {"a.png": FILES["a.png"]})

    class Unreadable(io.BytesIO):
        def read(self, size=-1):
            raise OSError(number, os.strerror(number))

        def fileno(self):
            return file.fileno()

    def open_regular(path, mode, **options):
        if at == "open":
            raise OSError(number, os.strerror(number), str(path))
        return Unreadable()

    with (tmp_path / "a.png").open("rb") as file, contextlib.ExitStack() as stack:
        source = stack.enter_context(open_source(str(tmp_path)))
        monkeypatch.setattr(contents, "open_regular", open_regular)
        check_refusal(lambda: list(encode_images(source, [0], AS_IT_IS, 1, tmp_path)), StorageError, "a.png")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("place", ["local", "bucket"])
def test_images_of_a_list_have_the_sizes_of_their_files(kind, place, tmp_path, request):
    root = str(tmp_path) if place == "local" else request.getfixturevalue("bucket")
    fill(locate(root), {f"images/{name}": content for name, content in FILES.items()})
    name = write_list(locate(root), kind, {"path": ["images/a.png", "images/c.png", "images/gone.png"]})
    with open_source(name) as source:
        assert [source.num_bytes(index) for index in range(3)] == [len(FILES["a.png"]), len(LARGE), 0]
        problems = [result.problem for result in encode_images(source, range(3), AS_IT_IS, 1, tmp_path)]
    assert [bool(problem) for problem in problems] == [False, False, True]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_an_image_that_a_list_has_twice_needs_one_class(kind, tmp_path):
    fill(locate(str(tmp_path)), FILES)
    columns = {"path": ["a.png", "b.png", "./a.png"], "label": ["cat", "dog", "cat"]}
    with open_source(write_list(locate(str(tmp_path)), kind, columns)) as source:
        assert [item.label for item in source.items] == [0, 1, 0]
    columns["label"][2] = "dog"
    name = write_list(locate(str(tmp_path)), kind, columns)
    check_refusal(lambda: open_source(name).__enter__(), DataError, "a.png", "cat", "dog")


def test_an_archive_that_the_system_cannot_read_has_no_bad_images(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.png", FILES["a.png"])

    def pread(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open_source(str(tmp_path / "set.zip")) as source:
        monkeypatch.setattr(os, "pread", pread)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            list(encode_images(source, [0], AS_IT_IS, 1, tmp_path))
