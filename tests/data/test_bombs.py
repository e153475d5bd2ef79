"""Archives, tables and images from outside: damage has a name, and sizes are checked before memory is taken."""

import bz2
import contextlib
import functools
import gzip
import io
import lzma
import multiprocessing
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import check_refusal

from trainer.data.loading import load
from trainer.data.prepare import convert
from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
from trainer.data.prepare.decoder_pool import DecoderPool
from trainer.data.prepare.encoding import read_content
from trainer.data.prepare.pixels import Target
from trainer.data.prepare.sources import SourceOptions, archives, open_source, tables
from trainer.errors import DataError, StorageError, TrainerError
from trainer.storage import locate

MIB = 2**20
METADATA = {"name": "set", "source": "here", "license": "", "attribution": "", "options": {}}
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.fixture(autouse=True)
def little_memory():
    """Asserts that no test takes much memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KiB


def picture(number=0, size=(40, 40)):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 255, (*size, 3), np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()


def read_all(path):
    with open_source(str(path)) as source:
        return [source.read(index) for index in range(len(source.items))]


def write_zip(path, *contents, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for index, content in enumerate(contents):
            archive.writestr(f"{index}.bmp", content)
    return path


def write_tar(path, *contents):
    mode = "w" if path.suffix == ".tar" else f"w:{path.suffix[1:]}"
    with tarfile.open(path, mode) as archive:
        for index, content in enumerate(contents):
            info = tarfile.TarInfo(f"{index}.bmp")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


ARCHIVES = {f"zip by method {method}": ("x.zip", functools.partial(write_zip, method=method)) for method in METHODS}
ARCHIVES |= {name: (name, write_tar) for name in ("x.tar", "x.tar.gz", "x.tar.bz2", "x.tar.xz")}


@pytest.mark.parametrize("method", METHODS)
def test_zip_members_are_read_with_every_method(method, tmp_path):
    contents = [picture(0), picture(1, (600, 600)), b"", bytes(2 * MIB)]
    path = write_zip(tmp_path / "x.zip", *contents, method=method)
    assert read_all(path) == contents
    path.write_bytes(b"#!/bin/sh\n" * 99 + path.read_bytes())  # a self-extracting archive
    assert read_all(path) == contents
    with open_source(str(path)) as source:
        assert [source.num_bytes(index) for index in range(4)] == [len(content) for content in contents]
        source.copy(1, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == contents[1]


@pytest.mark.parametrize("key", ARCHIVES)
def test_a_damaged_archive_never_gives_another_error_or_content(key, tmp_path):
    (name, write), contents = ARCHIVES[key], [picture(0), picture(1)]
    path = write(tmp_path / name, *contents)
    original = path.read_bytes()
    rng = random.Random(0)
    for _ in range(150):
        content = bytearray(original)
        for _ in range(rng.choice([1, 1, 4, 20])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content[: rng.choice([len(content), len(content), rng.randrange(len(content))])])
        try:
            read = read_all(path)
        except TrainerError as error:
            assert "\n" not in str(error)
        else:
            assert name == "x.tar" or set(read) <= set(contents)  # the content of a .tar has no checksum


def member(path, **changes):
    """Writes a zip file of one member whose directory entry has other values."""
    content = changes.pop("content", picture(3))
    write_zip(path, content, method=changes.pop("method", zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path) as archive:
        info, start = archive.infolist()[0], archive.start_dir
    entry = bytearray(path.read_bytes()[start:])
    offsets = {"flag_bits": (8, "<H"), "compress_type": (10, "<H"), "CRC": (16, "<I"), "compress_size": (20, "<I")}
    offsets |= {"file_size": (24, "<I"), "header_offset": (42, "<I"), "external_attr": (38, "<I")}
    for name, change in changes.items():
        offset, form = offsets[name]
        struct.pack_into(form, entry, offset, change(getattr(info, name)) if callable(change) else change)
    path.write_bytes(path.read_bytes()[:start] + entry)
    return path


LIES = {
    "less": {"file_size": 100},
    "nothing": {"file_size": 0},
    "more": {"file_size": 200 * MIB},
    "bzip2 more": {"file_size": 200 * MIB, "method": zipfile.ZIP_BZIP2},
    "bzip2 bomb": {"file_size": 100, "method": zipfile.ZIP_BZIP2, "content": bytes(64 * MIB)},
    "LZMA bomb": {"file_size": 100, "method": zipfile.ZIP_LZMA, "content": bytes(64 * MIB)},
    "deflate bomb": {"file_size": 100, "content": bytes(64 * MIB)},
    "no compressed size": {"compress_size": 0},
    "place": {"header_offset": 3},
    "checksum": {"CRC": 0},
    "encrypted": {"flag_bits": 1},
    "method": {"compress_type": 99},
    "zstd": {"compress_type": 93},
    "other method": {"compress_type": zipfile.ZIP_LZMA},
    "stored": {"compress_type": zipfile.ZIP_STORED},
    "too large": {"file_size": 300 * MIB},
    "link": {"external_attr": 0o120777 << 16},
}


@pytest.mark.parametrize("key", LIES)
def test_a_zip_member_that_lies_is_refused(key, tmp_path):
    path = member(tmp_path / "x.zip", **LIES[key])
    tracemalloc.start()
    check_refusal(lambda: read_all(path), DataError)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MIB


def test_a_dictionary_of_gigabytes_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", picture(0), method=zipfile.ZIP_LZMA)
    content = path.read_bytes()
    start = 30 + len("0.bmp") + 5  # after two headers and a byte of properties
    path.write_bytes(content[:start] + b"\xff" * 4 + content[start + 4 :])
    check_refusal(lambda: read_all(path), DataError)
    write_tar(tmp_path / "x.tar", picture(0))
    with lzma.open(tmp_path / "x.tar.xz", "wb", filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}]) as file:
        file.write((tmp_path / "x.tar").read_bytes())
    content = bytearray((tmp_path / "x.tar.xz").read_bytes())
    header = content[12 : 12 + 4 * (content[12] + 1)]
    header[4] = 40  # a dictionary of 4 GiB
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    content[12 : 12 + len(header)] = header
    (tmp_path / "x.tar.xz").write_bytes(content)
    check_refusal(lambda: read_all(tmp_path / "x.tar.xz"), DataError, "x.tar.xz")


def directory(num_members, zip64=False):
    """Returns a zip file of empty members that all have the same name and place."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, *[0] * 8, 1, *[0] * 6) + b"a"
    local = struct.pack("<4s2B4HL2L2H", b"PK\3\4", 20, *[0] * 8, 1, 0) + b"a"
    size, count = len(entry) * num_members, min(num_members, 2**16 - 1)
    end = b""
    if zip64:
        end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, num_members, num_members, size, len(local))
        end += struct.pack("<4sLQL", b"PK\6\7", 0, len(local) + size, 1)
        size, count = 2**32 - 1, 2**16 - 1
    end += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, len(local), 0)
    return local + entry * num_members + end


@pytest.mark.parametrize("zip64", [False, True])
def test_the_number_of_members_is_limited(zip64, tmp_path, monkeypatch):
    (tmp_path / "x.zip").write_bytes(directory(1_000_000, zip64))
    start = time.monotonic()
    check_refusal(lambda: read_all(tmp_path / "x.zip"), DataError, "x.zip", f"{archives.MAX_MEMBERS:,}")
    assert time.monotonic() - start < 5
    (tmp_path / "y.zip").write_bytes(directory(3, zip64))
    check_refusal(lambda: read_all(tmp_path / "y.zip"), DataError, "y.zip", ".png")  # no images, but readable
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    for name in ("z.tar", "z.tar.gz"):
        write_tar(tmp_path / name, *[picture(0)] * 3)
        check_refusal(lambda name=name: read_all(tmp_path / name), DataError, name, "2")


def test_an_archive_that_unpacks_to_hundreds_of_times_its_size_is_refused(tmp_path):
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = b"".join([*(block.compress(bytes(MIB)) for _ in range(200)), block.flush()])
    crc = 0
    for _ in range(200):
        crc = zlib.crc32(bytes(MIB), crc)
    with (tmp_path / "x.zip").open("wb") as file:
        entries = b""
        for index in range(50):
            name = f"{index:05d}.bmp".encode()
            fixed = (20, 0, 8, 0, 0, crc, len(data), 200 * MIB, len(name), 0)
            entries += struct.pack("<4sH", b"PK\1\2", 20) + struct.pack("<5H3L2H", *fixed)
            entries += struct.pack("<3H2L", 0, 0, 0, 0, file.tell()) + name
            file.write(b"PK\3\4" + struct.pack("<5H3L2H", *fixed) + name + data)
        start = file.tell()
        file.write(entries + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 50, 50, len(entries), start, 0))
    assert zipfile.ZipFile(tmp_path / "x.zip").infolist()[49].file_size == 200 * MIB
    check_refusal(lambda: read_all(tmp_path / "x.zip"), DataError, "x.zip", f"{50 * 200 * MIB:,}")


def header(name="0.bmp", size=0, kind=tarfile.REGTYPE, **fields):
    """Returns the header of a member. The size may be negative, and may be larger than the content."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = struct.pack(">Iq", 0x80000000 if size >= 0 else 0xFFFFFFFF, size)
    for offset, content in fields.items():
        block[int(offset[1:]) : int(offset[1:]) + len(content)] = content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records):
    text = "".join(records).encode()
    return header("pax", len(text), tarfile.XHDTYPE) + text.ljust(-(-len(text) // 512) * 512, b"\0")


FILE = header(size=0)
TARS = {
    "negative size": header(size=-512),
    "negative size of another file": header("x.txt", -1024) + FILE,
    "size beyond the file": header(size=99 * MIB),
    "size of another file beyond the file": header("x.txt", 2**62) + FILE,
    "long name": header("x", 2**60, tarfile.GNUTYPE_LONGNAME) + FILE,
    "long link": header("x", 2**33, tarfile.GNUTYPE_LONGLINK) + FILE,
    "attributes": header("x", 2**60, tarfile.XHDTYPE) + FILE,
    "global attributes": header("x", 2**33, tarfile.XGLTYPE) + FILE,
    "attributes of Solaris": header("x", 2**33, tarfile.SOLARIS_XHDTYPE) + FILE,
    "sparse": header(size=512, kind=tarfile.GNUTYPE_SPARSE) + bytes(512),
    "endless sparse": header(size=512, kind=tarfile.GNUTYPE_SPARSE, _482=b"\1") + b"\1" * 5120,
    "sparse attributes": pax("22 GNU.sparse.major=1\n", "22 GNU.sparse.minor=0\n", "30 GNU.sparse.realsize=99999\n")
    + FILE,
    "sparse map": pax("27 GNU.sparse.map=a,b,c,d,e\n"[:27], "20 GNU.sparse.size=9\n"[:20]) + FILE,
    "size in attributes": pax("32 size=999999999999999999999999\n"[:32]) + FILE,
    "negative size in attributes": pax("13 size=-999\n") + FILE,
    "size that is no number": pax("10 size=x\n") + FILE,
    "attributes without length": pax("99999999999999999999 a=b\n") + FILE,
}


@pytest.mark.parametrize("key", TARS)
@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_a_tar_file_that_lies_is_refused(name, key, tmp_path):
    content = TARS[key] + bytes(1024)
    (tmp_path / name).write_bytes(content if name == "x.tar" else gzip.compress(content))
    start = time.monotonic()
    with pytest.raises(TrainerError):
        assert read_all(tmp_path / name) == [b""]  # ignored attributes
        raise DataError("read as an empty file")
    assert time.monotonic() - start < 5


def test_streams_in_several_parts_are_read(tmp_path):
    contents = [picture(0), picture(1)]
    content = write_tar(tmp_path / "x.tar", *contents).read_bytes()
    for name, compress in (("x.tar.gz", gzip.compress), ("x.tar.bz2", bz2.compress), ("x.tar.xz", lzma.compress)):
        (tmp_path / name).write_bytes(
            compress(content[:5000]) + compress(content[5000:9000]) + compress(content[9000:])
        )
        assert read_all(tmp_path / name) == contents


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_a_compressed_tar_bomb_is_refused(suffix, tmp_path):
    path = tmp_path / f"x.tar.{suffix}"
    compress = {"gz": gzip.compress, "bz2": bz2.compress, "xz": functools.partial(lzma.compress, preset=0)}[suffix]
    path.write_bytes(compress(header("x.bin", 2**40)) + compress(bytes(16 * MIB)) * 40)
    start = time.monotonic()
    check_refusal(lambda: read_all(path), DataError, path.name, f"{2**40 + 512:,}")
    assert time.monotonic() - start < 5


def table(path, *rows):
    path.write_bytes(b"\n".join([b"path,label", *rows, b""]))
    return path


PATHS = (b"a\0.png,x", b"\0,x", b"a.png\0,x", b"a/\0/b.png,x", b"../a.png,x", b"x" * 200_000 + b",x")
CONTENTS = (b"", b"\0" * 99, b"\xff", b'"path\n' * 99, b"a" * 200_000, b"\n", b"path", b"a,\x1b[2J\n1,2")


@pytest.mark.parametrize("content", [*(b"path,label\n%b\n" % row for row in PATHS), *CONTENTS])
def test_a_damaged_table_and_one_with_odd_paths_are_refused(content, tmp_path):
    (tmp_path / "x.csv").write_bytes(content)
    check_refusal(lambda: read_all(tmp_path / "x.csv"), DataError)


def test_the_number_of_lines_of_a_table_is_limited(tmp_path, monkeypatch):
    assert len(read_csv_rows(tmp_path, [b"a.png,x", b""] * 3)) == 3
    monkeypatch.setattr(tables, "MAX_ROWS", 3)
    check_refusal(lambda: read_csv_rows(tmp_path, [b"a.png,x"] * 4), DataError, "x.csv", "3")


@pytest.mark.parametrize("row", [b"," * 1000, b'"\n",' * 1000, b"," * 2**20], ids=["columns", "lines", "one line"])
def test_the_size_of_a_row_is_limited(row, tmp_path):
    check_refusal(lambda: read_csv_rows(tmp_path, [b"a.png,x", row]), DataError, "x.csv", "1,0")


def read_csv_rows(folder, rows):
    (folder / "a.png").write_bytes(picture())
    return read_all(table(folder / "x.csv", *rows))


def convert_source(source_name, out, num_processes=1, on_progress=lambda progress: None, image_root=None, **options):
    options = ConversionOptions(num_processes=num_processes, **options)
    with open_source(str(source_name), SourceOptions(image_root=image_root)) as source:
        plan = plan_conversion(source, options)
        return convert.convert(source, plan, options, locate(str(out)), METADATA, on_progress)


def test_devices_and_pipes_in_sources_are_bad_images(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "good.bmp").write_bytes(picture())
    os.mkfifo(pictures / "pipe.png")
    (pictures / "zero.png").symlink_to("/dev/zero")
    _, progress = convert_source(pictures, tmp_path / "out", max_bad_images=2)
    assert {name for name, _ in progress.bad_images} == {"pipe.png", "zero.png"}
    listed = table(pictures / "x.csv", b"pipe.png,x", b"good.bmp,x")
    _, progress = convert_source(listed, tmp_path / "csv", max_bad_images=1)
    assert [name for name, _ in progress.bad_images] == ["pipe.png"]
    devices = table(tmp_path / "devices.csv", b"zero,x", b"full,x", b"tty,x")
    check_refusal(lambda: convert_source(devices, tmp_path / "none", image_root="/dev", max_bad_images=9), DataError)


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_large_images_wait_in_files_that_are_deleted(name, tmp_path, monkeypatch):
    contents = [picture(index, (700, 700)) for index in range(6)] + [picture(index, (30, 30)) for index in range(40)]
    {"x.zip": write_zip, "x.tar": write_tar}[name](tmp_path / name, *contents)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    for num_processes in (1, 2):
        spec, progress = convert_source(
            tmp_path / name, tmp_path / str(num_processes), num_processes, image_size=(8, 8)
        )
        assert spec.num_examples == 46 and not progress.bad_images
    assert not list((tmp_path / "scratch").iterdir())
    shards = [(tmp_path / folder / "images-00000.tfrecord").read_bytes() for folder in "12"]
    assert shards[0] == shards[1]


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_copies_that_fail_are_deleted(name, tmp_path):
    write = {"x.zip": functools.partial(write_zip, method=zipfile.ZIP_STORED), "x.tar": write_tar}[name]
    write(tmp_path / name, picture(0, (700, 700)), picture(1, (700, 700)))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_source(str(tmp_path / name)) as source:
        os.truncate(tmp_path / name, 1_000_000)
        check_refusal(lambda: read_content(source, 0, scratch), DataError)
        assert not list(scratch.iterdir())
        check_refusal(lambda: read_content(source, 0, tmp_path / "missing"), StorageError, "TMPDIR")


@pytest.mark.slow
def test_a_killed_decoding_process_is_named(tmp_path):
    for index in range(100):
        (tmp_path / f"{index}.bmp").write_bytes(picture(index, (1500, 1500)))

    def kill(progress):
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)

    check_refusal(
        lambda: convert_source(tmp_path, tmp_path / "out", 2, kill, image_size=(8, 8)), DataError, "--num_workers"
    )
    assert not (tmp_path / "out/dataset.json").exists()


DECODERS = """
import sys, time
from pathlib import Path
from trainer.data.prepare.decoder_pool import DecoderPool
from trainer.data.prepare.pixels import Target
if __name__ == "__main__":
    pool = DecoderPool(Target(8, 8, 3, "crop"), 2)
    for _ in range(2):
        pool.submit([(index, Path(sys.argv[1])) for index in range(int(sys.argv[2]))])
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_images", [1, 1000], ids=["waiting", "decoding"])
def test_decoding_processes_end_when_their_parent_is_killed(num_images, tmp_path):
    (tmp_path / "x.bmp").write_bytes(picture(0, (1000, 1000)))
    (tmp_path / "decoders.py").write_text(DECODERS)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, tmp_path / "decoders.py", tmp_path / "x.bmp", str(num_images)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while len(children := child_ids(process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(3)  # until the processes have started to decode
        process.kill()
    assert len(children) == 3  # with the process that counts semaphores
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_running, children))


def is_running(process_id):
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def child_ids(process_id):
    return [
        int(child)
        for thread in Path(f"/proc/{process_id}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]


@pytest.mark.slow
def test_the_image_that_a_killed_process_was_decoding_is_known(tmp_path):
    (tmp_path / "x.bmp").write_bytes(picture(0, (4000, 4000)))
    with contextlib.closing(DecoderPool(Target(8, 8, 3, "crop"), 1)) as pool:
        future = pool.submit([(7, tmp_path / "x.bmp")] * 20)
        while not pool.current_images():
            time.sleep(0.001)
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(BrokenProcessPool):
            future.result()
        assert pool.current_images() == [7]


@pytest.mark.parametrize(
    ("values", "mode", "bits"),
    [((0, 4095), "I;16", 12), ((0, 1023), "I;16", 10), ((0, 1), "L", 1), ((3, 15), "RGB", 4), ((0, 16383), "I;16", 14)],
)
def test_sets_of_almost_black_images_are_reported(values, mode, bits, tmp_path, caplog):
    for index in range(4):
        array = np.random.default_rng(index).choice(values, (8, 8)).astype(np.uint16 if mode == "I;16" else np.uint8)
        (Image.fromarray(array) if mode != "RGB" else Image.merge("RGB", [Image.fromarray(array)] * 3)).save(
            tmp_path / f"{index}.png"
        )
    convert_source(tmp_path, tmp_path / "dark")
    max_value = load(str(tmp_path / "dark")).images.max()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and max_value <= 64
    assert "4 of 4" in warnings[0] and "--bits" in warnings[0] and f"end at {max_value} of 255" in warnings[0]
    caplog.clear()
    convert_source(tmp_path, tmp_path / "bright", bits=bits)
    assert load(str(tmp_path / "bright")).images.max() == 255 and not caplog.records
    check_refusal(lambda: convert_source(tmp_path, tmp_path / "none", bits=bits - 1 or 16), DataError, "--bits")


BOMB = """
import io, sys, zipfile
from PIL import Image
from trainer.__main__ import main
for kind in sys.argv[1:]:
    name, _, mode = kind.partition(":")
    picture = Image.new(mode, (8000, 8000))
    picture.paste(Image.new(mode, (3000, 3000), "red"), (1000, 1000))
    buffer = io.BytesIO()
    options = {"WEBP": {"lossless": True, "quality": 0, "method": 0}, "AVIF": {"speed": 10}}
    picture.save(buffer, name, **options.get(name, {}))
    with zipfile.ZipFile(f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(4):
            archive.writestr(f"{index}.{name.lower()}", buffer.getvalue())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["PNG:RGBA", "WEBP:RGB", "AVIF:RGB"])
def test_images_of_64_megapixels_are_decoded_in_two_gigabytes(kind, tmp_path):
    name = kind.partition(":")[0]
    subprocess.run([sys.executable, "-c", BOMB, kind], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "trainer", "prepare", f"--source={name}.zip", "--out=out", "--image_size=8"]
    root = Path(__file__).parents[2]
    process = subprocess.Popen([*command, "--num_workers=2"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)})
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_bytes(process.pid))
        time.sleep(0.05)
    assert process.returncode == 0
    assert peak < 2 * 2**30


def tree_bytes(process_id):
    """Returns the resident memory of a process and its children; shared pages count once for each."""
    total, pending = 0, [process_id]
    while pending:
        folder = Path(f"/proc/{pending.pop()}")
        try:
            total += int((folder / "statm").read_text().split()[1]) * resource.getpagesize()
            pending.extend(child_ids(folder.name))
        except OSError:
            continue
    return total
