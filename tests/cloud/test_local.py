"""Jobs on this machine end, restart and stop as on Vertex AI, and leave no process behind."""

import json
import logging
import random
import signal
import threading
import time

import pytest
from programs import CHIEF, DEAF, ORDERLY, WAIT, WORKER, leftovers, replica, starts

from trainer import control_group
from trainer.cloud.emulator import oom_counter, runner
from trainer.cloud.emulator.processes import start_process
from trainer.cloud.emulator.restart_policy import (
    MAX_JOB_RETRIES,
    MAX_WORKER_RESTARTS,
    RestartPolicy,
    classify_exit,
    describe_exit,
)
from trainer.errors import JobError, JobStopped


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    yield
    assert leftovers(tmp_path) == []
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def run(folder, chief, worker=None, **policy):
    replicas = [replica(folder, chief)] + ([replica(folder, worker, WORKER)] if worker else [])
    return runner.run(replicas, RestartPolicy(**{"grace_secs": 5.0} | policy))


def warnings(log):
    """Messages of the runner that are warnings."""
    return [record.getMessage() for record in log.records if record.levelno == logging.WARNING]


def check_failure(folder, chief, worker=None, *, exit_code, mentions=(), **policy):
    """Runs a job that fails, and checks the exit code and the facts in the message."""
    with pytest.raises(JobError) as caught:
        run(folder, chief, worker, **policy)
    assert caught.value.exit_code == exit_code
    assert "\n" not in str(caught.value)
    for mention in mentions:
        assert mention in str(caught.value)


def test_a_job_ends_with_its_chief_and_stops_the_others(tmp_path, capsys):
    run(tmp_path, "until(lambda: noted('ready')); print('done')", f"{ORDERLY}; note('ready', name); {WAIT}")
    assert sorted(starts(tmp_path)) == [CHIEF, WORKER]
    entry = json.loads(capsys.readouterr().out)
    assert (entry["replica"], entry["message"]) == (CHIEF, "done")


def test_lines_of_both_streams_carry_their_replicas_name(tmp_path, capsys):
    chief = (
        'until(lambda: noted(\'said\')); print(\'{"severity": "INFO", "message": "a"}\'); print(\'é\', file=sys.stderr)'
    )
    run(tmp_path, chief, "print('b\\rc', flush=True); note('said', name)")
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted((entry["replica"], entry["severity"], entry["message"]) for entry in entries) == [
        (CHIEF, "DEFAULT", "é"),
        (CHIEF, "INFO", "a"),
        (WORKER, "DEFAULT", "b"),
        (WORKER, "DEFAULT", "c"),
    ]


def test_a_worker_may_be_done_before_the_chief(tmp_path):
    run(tmp_path, "until(lambda: noted('over'))", "note('over', name)")


@pytest.mark.parametrize("code", [1, 3, 137])
@pytest.mark.parametrize("name", [CHIEF, WORKER])
def test_an_error_of_user_code_ends_the_job(name, code, tmp_path):
    programs = [f"until(lambda: noted('ready')); sys.exit({code})", f"{DEAF}; {WAIT}"]
    chief, worker = programs if name == CHIEF else reversed(programs)
    check_failure(tmp_path, chief, worker, exit_code=code, mentions=(name, str(code)), restart_job=True, grace_secs=0.1)
    assert sorted(starts(tmp_path)) == [CHIEF, WORKER]


def test_children_of_a_replica_end_with_it(tmp_path):
    endless = "[sys.executable, '-c', 'import signal; signal.pause()']"
    run(tmp_path, f"note('pids', str(subprocess.Popen({endless}).pid))")


@pytest.mark.parametrize("end", ["die(signal.SIGKILL)", "die(signal.SIGTERM)", "sys.exit(143)"])
def test_only_the_replica_of_a_lost_machine_restarts(end, tmp_path, trainer_log):
    run(tmp_path, f"until(lambda: noted('starts').count('{WORKER}') == 2)", f"{end} if starts == 1 else {WAIT}")
    assert sorted(starts(tmp_path)) == [CHIEF, WORKER, WORKER]
    (warning,) = warnings(trainer_log)
    assert WORKER in warning and ("6" if "KILL" in end else "5") in warning


def test_a_restarted_replica_is_the_same_one(tmp_path):
    replicas = []

    def start(replica):
        replicas.append(replica)
        return start_process(replica)

    runner.run([replica(tmp_path, "die(signal.SIGKILL) if starts == 1 else None")], RestartPolicy(), start=start)
    assert len(replicas) == 2 and replicas[0] is replicas[1]


def test_restart_job_restarts_all_replicas(tmp_path):
    worker = f"if starts == 1: until(lambda: '{CHIEF}' in noted('starts')); die(signal.SIGKILL)"
    run(tmp_path, "if starts == 1: signal.pause()", worker, restart_job=True)
    assert starts(tmp_path).count(CHIEF) == 2 and WORKER in starts(tmp_path)


def lost_worker_and(end):
    """Programs of a chief and a worker. At the first start, the chief kills the worker and then ends itself by `end`.

    A process that keeps the worker's output open delays the event of its end until after the chief's.
    """
    holder = "import os, sys, time\nwhile open(sys.argv[1]).read().count('workerpool0-0') < 2: time.sleep(.01)"
    worker = f"""
if starts == 1:
    file = os.path.join(folder, "starts")
    held = subprocess.Popen([sys.executable, "-c", {holder!r}, file], start_new_session=True)
    note("pids", str(held.pid))
    note("pid", str(os.getpid()))
    {WAIT}
"""
    chief = f"""
if starts == 1:
    until(lambda: noted("pid"))
    os.kill(int(noted("pid")[0]), signal.SIGKILL)
    try:
        until(lambda: os.kill(int(noted("pid")[0]), 0))
    except ProcessLookupError:
        {end}
"""
    return chief, worker


def test_a_failure_after_a_lost_replica_restarts_the_job(tmp_path):
    run(tmp_path, *lost_worker_and("sys.exit(1)"), restart_job=True)
    assert starts(tmp_path).count(CHIEF) == 2


def test_a_full_memory_ends_a_job_that_has_lost_a_replica(tmp_path, monkeypatch):
    counts = iter([7, 8])
    monkeypatch.setattr(oom_counter, "_read_count", lambda: next(counts, 8))
    programs = lost_worker_and("die(signal.SIGKILL)")
    with pytest.raises(JobError) as caught:
        run(tmp_path, *programs, restart_job=True)
    assert leftovers(tmp_path)  # the holder
    assert caught.value.exit_code == 137 and starts(tmp_path).count(CHIEF) == 1


@pytest.mark.parametrize("end", ["die(signal.SIGABRT)", "sys.exit(6)", "sys.exit(134)"])
def test_a_crashed_job_restarts(end, tmp_path):
    run(tmp_path, f"{end} if starts == 1 else None", WAIT)
    assert starts(tmp_path).count(CHIEF) == 2


def test_the_fourth_crash_ends_the_job(tmp_path):
    check_failure(tmp_path, "die(signal.SIGABRT)", exit_code=134, mentions=(CHIEF, "SIGABRT", "3"))
    assert len(starts(tmp_path)) == 4


@pytest.mark.parametrize("restart_job", [False, True])
def test_max_restarts_limits_lost_machines(restart_job, tmp_path):
    check_failure(
        tmp_path,
        "die(signal.SIGKILL)",
        exit_code=137,
        mentions=(CHIEF, "SIGKILL", "--max_restarts"),
        max_restarts=1,
        restart_job=restart_job,
    )
    assert len(starts(tmp_path)) == 2


def test_a_signal_that_the_program_raises_ends_the_job(tmp_path):
    check_failure(tmp_path, "die(signal.SIGILL)", exit_code=128 + signal.SIGILL, mentions=(CHIEF, "SIGILL"))
    assert starts(tmp_path) == [CHIEF]


def test_a_signal_without_a_name_has_its_number():
    assert "99" in describe_exit(-99)


def test_preemptions_and_other_losses_are_counted_together(tmp_path):
    chief = f"die(signal.SIGKILL) if starts == 2 else {WAIT}"
    with pytest.raises(JobError, match="--max_restarts") as caught:
        run(tmp_path, chief, preempt_every_secs=0.5, restart_job=True, max_restarts=1)
    assert caught.value.exit_code in (137, 143)
    assert len(starts(tmp_path)) <= 2


@pytest.mark.parametrize(("number", "code"), [("SIGKILL", 137), ("SIGSEGV", 139)])
def test_nothing_restarts_if_retries_are_disabled(number, code, tmp_path):
    mentions = (CHIEF, number, "scheduling.disableRetries")
    check_failure(tmp_path, f"die(signal.{number})", exit_code=code, mentions=mentions, disable_retries=True)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((-signal.SIGABRT, -signal.SIGSEGV, 6, 11, 134, 139), "crashed"),
        ((-signal.SIGKILL,), "preempted"),
        ((-signal.SIGTERM, -signal.SIGHUP, -signal.SIGINT, 143), "stopped"),
        ((1, 2, 15, 130, 132, 136, 137, 255), "failed"),
        ((-signal.SIGILL, -signal.SIGFPE, -signal.SIGBUS, -signal.SIGUSR1, -signal.SIGPIPE), "failed"),
    ],
)
def test_exit_codes_are_classified(codes, expected):
    assert {classify_exit(code) for code in codes} == {expected}


def test_a_process_that_the_kernel_killed_for_memory_ends_the_job(tmp_path, monkeypatch):
    counts = iter([7, 7, 8])
    monkeypatch.setattr(oom_counter, "_read_count", lambda: next(counts))
    mentions = (CHIEF, "SIGKILL", "memory", "--data_memory_mib")
    check_failure(tmp_path, "die(signal.SIGKILL)", exit_code=137, mentions=mentions, restart_job=True)
    assert len(starts(tmp_path)) == 2  # the first SIGKILL was a preemption


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cgroup": "0::/a/b\n", "fs/a/b/memory.events": "oom 9\noom_kill 3\n"}, 3),
        ({"cgroup": "0::/a/b\n", "fs/memory.events": "oom 9\noom_kill 4\n"}, 4),
        ({"cgroup": "4:cpu:/a\n3:memory:/a\n0::/\n", "fs/memory/a/memory.oom_control": "oom_kill 5\n"}, 5),
        ({"cgroup": "0::/a/b\n", "vmstat": "pgfault 2\noom_kill 6\n"}, 6),
        ({}, 0),
    ],
)
def test_the_kernels_counter_is_that_of_the_own_group(tmp_path, monkeypatch, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(control_group, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(control_group, "_ROOT", tmp_path / "fs")
    monkeypatch.setattr(oom_counter, "_MACHINE_COUNTERS", tmp_path / "vmstat")
    assert oom_counter._read_count() == expected


def test_a_replica_restarts_five_times_and_then_the_job_three_times(tmp_path, trainer_log):
    check_failure(tmp_path, "sys.exit(143)", exit_code=143, mentions=(CHIEF, "143", "3"))
    assert len(starts(tmp_path)) == (1 + MAX_WORKER_RESTARTS) * (1 + MAX_JOB_RETRIES) == 24
    assert sum("the whole job" in warning for warning in warnings(trainer_log)) == 3


@pytest.mark.parametrize(
    "first", [f"{ORDERLY}; {WAIT}", f"{DEAF}; {WAIT}", "signal.signal(15, lambda *_: sys.exit(1)); " + WAIT]
)
def test_a_preempted_replica_restarts(first, tmp_path, trainer_log):
    stats = run(tmp_path, f"if starts == 1: {first}", preempt_every_secs=0.3, grace_secs=0.1, max_restarts=99)
    assert stats.count >= len(starts(tmp_path)) - 1 >= 1  # one may be stopped before it notes its start
    assert stats.lost_secs > 0
    assert trainer_log.records[-1].fields == {"preemptions": stats.count, "lost_secs": stats.lost_secs}


def test_a_preemption_restarts_all_replicas(tmp_path):
    chief = f"if noted('starts').count('{WORKER}') < 2 or starts < 2: {WAIT}"
    stats = run(tmp_path, chief, WAIT, preempt_every_secs=0.3, restart_job=True, max_restarts=99)
    assert stats.count >= 1 and min(map(starts(tmp_path).count, (CHIEF, WORKER))) >= 2


@pytest.mark.parametrize("seed", range(3))
def test_the_seed_decides_which_replica_is_preempted(seed, tmp_path, trainer_log):
    chosen = random.Random(seed).choice([CHIEF, WORKER])
    with pytest.raises(JobError):
        run(tmp_path, WAIT, WAIT, preempt_every_secs=0.1, seed=seed, max_restarts=0)
    assert chosen in warnings(trainer_log)[0]


def test_a_job_ends_at_its_timeout(tmp_path):
    check_failure(tmp_path, WAIT, WAIT, exit_code=1, mentions=("scheduling.timeout=0.2s",), timeout_secs=0.2)


INTERRUPT = "os.kill(os.getppid(), signal.SIGINT)"


def test_ctrl_c_stops_all_replicas(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, f"until(lambda: noted('ready')); {INTERRUPT}; {WAIT}", f"{ORDERLY}; note('ready', name); {WAIT}")


def test_a_second_ctrl_c_kills_all_replicas(tmp_path):
    chief = f"signal.signal(signal.SIGTERM, lambda *_: {INTERRUPT}); {INTERRUPT}; until(lambda: False)"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, chief, grace_secs=600.0)


def test_processes_that_ignore_sigterm_are_killed_after_grace(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, f"{DEAF}; {INTERRUPT}; until(lambda: False)", grace_secs=0.1)


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_to_the_runner_stops_all_replicas(number, code, tmp_path):
    chief = f"{ORDERLY}; os.kill(os.getppid(), signal.{number}); {WAIT}"
    check_failure(tmp_path, chief, WAIT, exit_code=code, mentions=(number,))


def test_ctrl_c_during_a_restart_ends_the_job(tmp_path):
    chief = f"signal.signal(signal.SIGTERM, lambda *_: ({INTERRUPT}, sys.exit(143))); note('ready', name); {WAIT}"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, chief, "until(lambda: noted('ready')); die(signal.SIGKILL)", restart_job=True)
    assert sorted(starts(tmp_path)) == [CHIEF, WORKER]


def test_a_replica_that_cannot_start_stops_the_others(tmp_path):
    def start(replica):
        if replica.name == WORKER:
            raise OSError("no more processes")
        return start_process(replica)

    replicas = [replica(tmp_path, WAIT), replica(tmp_path, WAIT, WORKER)]
    with pytest.raises(OSError, match="no more processes"):
        runner.run(replicas, RestartPolicy(), start=start)


def test_the_stop_event_ends_a_job_by_sigterm(tmp_path):
    stop = threading.Event()

    def stop_when_ready():
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        stop.set()

    watch = threading.Thread(target=stop_when_ready)
    watch.start()
    chief = replica(tmp_path, f"{ORDERLY}; note('ready', name); {WAIT}")
    with pytest.raises(JobStopped, match="SIGTERM") as caught:
        runner.run([chief], RestartPolicy(restart_job=True), stop=stop)
    watch.join()
    assert caught.value.exit_code == 143 and starts(tmp_path) == [CHIEF]
