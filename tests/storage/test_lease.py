"""One process at a time writes a folder, local or in a bucket, and no write follows the loss of a lease."""

import contextlib
import errno
import fcntl
import functools
import json
import logging
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from refusals import check_refusal

from trainer import signals
from trainer.errors import LeaseError, StorageError
from trainer.storage import Mirror, lease, lease_owner, locate
from trainer.storage.lease import BY_PRODUCT_AGE_SECS, LEASE, hold
from trainer.testing.fault_proxy import Fault

HOLDER = """
import signal, sys
from trainer.storage import lease, locate
with lease.hold(locate(sys.argv[1]), "job_dir"):
    print("held", flush=True)
    signal.pause()
"""


@pytest.fixture
def folder(storage_folder):
    """A folder that does not exist."""
    return storage_folder / "runs/run"


@pytest.fixture
def remote(bucket):
    return locate(f"{bucket}/run")


@pytest.fixture
def quick(monkeypatch):
    """Times of seconds instead of minutes."""
    times = {"RENEWAL_SECS": 0.05, "EXPIRY_SECS": 0.6, "_OBSERVATION_SECS": 0.3, "_BUCKET_POLL_SECS": 0.02}
    for name, secs in (times | {"_LOCAL_POLL_SECS": 0.02}).items():
        monkeypatch.setattr(lease, name, secs)


@contextlib.contextmanager
def another_process(folder):
    """A process that holds the lease of a folder."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def write_owner(remote, **changes):
    """Writes the lease of a process on another machine."""
    with lease_owner.LeaseOwner.current() as owner:
        values = json.loads(owner.to_bytes())
    values |= {"token": "other", "host": "far", "machine": "other", "pid": 12} | changes
    (remote / LEASE).write_bytes(json.dumps(values).encode())


def refused(folder, *mentions, **settings):
    def act():
        with hold(folder, "job_dir=a", **settings):
            pass

    check_refusal(act, LeaseError, "job_dir=a", *mentions)


def test_a_second_process_is_refused_and_the_first_one_named(folder):
    with another_process(folder) as process:
        refused(folder, str(process.pid))
        refused(folder, str(process.pid), replica="the same")
        process.terminate()


def test_a_lease_in_one_process_excludes_its_other_threads(folder):
    for _ in range(2):
        with hold(folder, "job_dir=a"):
            refused(folder, str(os.getpid()))
            refused(folder, str(os.getpid()), replica="a job")
    assert list(folder.entries()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lease_of_a_process_that_has_ended_is_free_at_once(number, folder):
    with another_process(folder) as process:
        process.send_signal(number)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie
        with hold(folder, "job_dir=a"):
            pass
        process.wait()
    with hold(folder, "job_dir=a"):
        pass


def test_names_of_one_local_folder_are_one_place(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "up").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = ("run", "./run", "run/", "link", "up/link", "run/../run", f"{tmp_path}/up/run")
    for name in names:
        with hold(locate(name), "job_dir=a"):
            for other in names:
                refused(locate(other))


def test_names_of_one_folder_in_a_bucket_are_one_place(bucket):
    names = (f"{bucket}/run", f"{bucket}/run/", f"{bucket}//run", f"{bucket}/./run")
    for name in names:
        with hold(locate(name), "job_dir=a"):
            for other in names:
                refused(locate(other))


def test_only_created_and_empty_folders_are_deleted(tmp_path):
    (tmp_path / "old").mkdir()
    with hold(locate(tmp_path / "old/a/b"), "job_dir=a"):
        pass
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]
    with hold(locate(tmp_path / "new"), "job_dir=a"):
        (tmp_path / "new/file").touch()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
    with hold(locate(tmp_path / "old"), "job_dir=a"):
        pass
    assert (tmp_path / "old").is_dir()


def test_a_waiting_process_gets_the_lease_when_the_first_ends(folder, quick):
    events, first_has_lease = [], threading.Event()

    def wait():
        first_has_lease.wait()
        with hold(folder, "job_dir=a", waits=True):
            events.append("second")

    thread = threading.Thread(target=wait)
    thread.start()
    with hold(folder, "job_dir=a"):
        first_has_lease.set()
        time.sleep(0.3)
        events.append("first")
    thread.join()
    assert events == ["first", "second"]


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, signals.Terminated)]
)
def test_waiting_ends_at_a_signal(number, error, folder, quick):
    with signals.raised(), hold(folder, "job_dir=a") as own_lease:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
        timer.start()
        with pytest.raises(error), hold(folder, "job_dir=b", waits=True):
            pass
        timer.join()
        own_lease.verify()


def race(path, results, barrier):
    barrier.wait()
    try:
        with hold(locate(path), "job_dir=a"):
            results.put("held")
            barrier.wait()
    except LeaseError:
        results.put("refused")
        barrier.wait()


def test_of_many_processes_exactly_one_gets_the_lease(folder):
    context = multiprocessing.get_context("spawn")
    results, barrier = context.Queue(), context.Barrier(4)
    processes = [context.Process(target=race, args=(str(folder), results, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    assert sorted(results.get(timeout=60) for _ in processes) == ["held", *["refused"] * 3]
    for process in processes:
        process.join()


LOSSES = {
    "deleted": lambda folder: folder.delete([LEASE]),
    "replaced": lambda folder: (folder.delete([LEASE]), (folder / LEASE).write_bytes(b"{}")),
    "taken over": lambda folder: (folder.delete([LEASE]), write_owner(folder)),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_is_written_after_a_lease_is_lost(loss, folder, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a").touch()
    with hold(folder, "job_dir=a") as own_lease:
        own_lease.verify()
        LOSSES[loss](folder)
        before = {entry.name for entry in folder.entries()}
        for check in (
            own_lease.verify,
            *(functools.partial(own_lease.verify, age) for age in (BY_PRODUCT_AGE_SECS, math.inf)),
        ):
            check_refusal(check, LeaseError, "job_dir=a")
        with Mirror(tmp_path / "files", folder, check=own_lease.verify):
            pass
    assert {entry.name for entry in folder.entries()} == before


def test_by_products_ask_the_bucket_only_after_a_pause(remote, monkeypatch):
    with hold(remote, "job_dir=a") as own_lease:
        write_owner(remote)
        own_lease.verify(BY_PRODUCT_AGE_SECS)
        now = lease._now()
        monkeypatch.setattr(lease, "_now", lambda: now + 300)
        check_refusal(lambda: own_lease.verify(BY_PRODUCT_AGE_SECS), LeaseError, "12", "far")


def test_the_owner_notices_a_loss_at_the_next_renewal(remote, quick):
    with hold(remote, "job_dir=a") as own_lease:
        write_owner(remote)
        deadline = time.monotonic() + 10
        with pytest.raises(LeaseError):
            while time.monotonic() < deadline:
                own_lease.verify(math.inf)
                time.sleep(0.01)


def test_a_renewed_lease_never_expires(remote, quick):
    with hold(remote, "job_dir=a") as own_lease:
        for _ in range(4):
            time.sleep(0.3)
            refused(remote)
        own_lease.verify()


def test_a_lease_of_another_machine_expires(remote, quick):
    write_owner(remote)
    refused(remote, "12", "far")
    started = time.monotonic()
    with hold(remote, "job_dir=a", waits=True):
        assert time.monotonic() - started > 0.5
    write_owner(remote, renewed_at=time.time() - 10)
    with hold(remote, "job_dir=a"):  # an expired one is taken over without the flag
        pass


@pytest.mark.parametrize("secs", [-1000, 1000])
def test_a_wrong_clock_takes_no_lease_from_a_running_process(secs, remote, quick, monkeypatch):
    monkeypatch.setattr(lease_owner, "_machine", lambda: "")  # only clocks and renewals decide
    with hold(remote, "job_dir=a") as own_lease:
        clock = time.time
        thread = threading.get_ident()
        monkeypatch.setattr(time, "time", lambda: clock() + secs * (threading.get_ident() == thread))
        refused(remote)
        own_lease.verify()


REPLICAS = {
    "same": ("7, trial 1, chief", True),
    "other trial": ("7, trial 2, chief", False),
    "other job": ("8, trial 1, chief", False),
    "other machine": ("7, trial 1, worker 0", False),
    "none": ("", False),
}


@pytest.mark.parametrize(("replica", "is_taken"), REPLICAS.values(), ids=REPLICAS)
def test_the_next_process_of_a_replica_takes_over_at_once(replica, is_taken, remote):
    with lease_owner.LeaseOwner.current("7, trial 1, chief") as owner:
        write_owner(remote, replica=owner.replica)
    if not is_taken:
        refused(remote, "far", replica=replica)
        return
    with hold(remote, "job_dir=a", replica=replica) as own_lease:
        own_lease.verify()


def test_another_process_with_the_number_of_the_owner_is_not_the_owner(remote):
    with lease_owner.LeaseOwner.current() as owner:
        own = {name: getattr(owner, name) for name in ("host", "machine", "pid", "start_time")}
    if not own["machine"]:
        pytest.skip("this system does not identify processes")
    parent = own | {"pid": os.getppid()}
    for values in (parent | {"start_time": 1}, own, own | {"start_time": 1}, own | {"pid": 2**22 + 1}):
        write_owner(remote, **values)
        with hold(remote, "job_dir=a"):
            pass
    write_owner(remote, **parent | {"start_time": lease_owner._start_time(os.getppid())})
    refused(remote)
    write_owner(remote, **own | {"host": "another container", "start_time": 1})
    refused(remote)


DAMAGED = [b"", b"{", b"[]", b"null", b'{"token": 1}', b"\xff" * 99, b"0" * 999]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_lease_is_taken_over(content, folder, quick):
    (folder / LEASE).write_bytes(content)
    with hold(folder, "job_dir=a") as own_lease:
        own_lease.verify()


def test_a_large_object_is_not_read(remote):
    (remote / LEASE).write_bytes(b" " * 2**20)
    check_refusal(lambda: hold(remote, "job_dir=a").__enter__(), StorageError, str(remote / LEASE))


@pytest.mark.parametrize("kind", ["link", "broken link", "folder", "pipe"])
def test_only_a_regular_file_becomes_a_lease(kind, tmp_path):
    path = tmp_path / "run" / LEASE
    path.parent.mkdir()
    (tmp_path / "other").write_text("text")
    {
        "link": lambda: path.symlink_to(tmp_path / "other"),
        "broken link": lambda: path.symlink_to(tmp_path / "none"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    check_refusal(lambda: hold(locate(path.parent), "job_dir=a").__enter__(), StorageError, "job_dir=a", LEASE)
    assert (tmp_path / "other").read_text() == "text" and not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["file", "file/run", "/proc/run"])
def test_a_folder_that_cannot_be_written_is_named(name, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    check_refusal(lambda: hold(locate(name), f"job_dir={name}").__enter__(), StorageError, f"job_dir={name}")


def test_a_file_system_without_locks_is_reported(tmp_path, monkeypatch, caplog):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(logging.getLogger("trainer"), "propagate", True)
    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(locate(tmp_path / "run"), "job_dir=a"):
        pass
    assert str(tmp_path / "run") in caplog.text


@pytest.mark.parametrize("fault", [Fault.LOST_RESPONSE, Fault.DROPPED_REQUEST, Fault.CUT_RESPONSE, 503, 429])
def test_transient_errors_lose_no_lease(fault, bucket, proxy, quick):
    folder, numbers = locate(f"{bucket}/run"), []

    def every_second_request(request):
        if request.object_name.endswith(LEASE):
            numbers.append(request.number)
            return fault if len(numbers) % 2 else None
        return None

    proxy.policy = every_second_request
    with hold(folder, "job_dir=a") as own_lease:
        for _ in range(3):
            time.sleep(0.1)
            own_lease.verify()
    proxy.policy = lambda request: None
    assert len(proxy.failed) > 3 and list(folder.entries()) == []


def test_an_outage_is_survived_unless_another_process_takes_over(bucket, proxy, quick, monkeypatch):
    folder = locate(f"{bucket}/run")
    monkeypatch.setattr(lease_owner, "_machine", lambda: "")
    with hold(folder, "job_dir=a") as own_lease:
        proxy.policy = lambda request: 403
        time.sleep(0.3)
        own_lease.verify(math.inf)
        check_refusal(own_lease.verify, StorageError, "403")
        proxy.policy = lambda request: None
        own_lease.verify()
        write_owner(folder)
        check_refusal(own_lease.verify, LeaseError, "far")
