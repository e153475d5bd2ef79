"""Work that takes long ends early after a request, at its next part."""

import threading

import numpy as np
import pytest

from trainer import heartbeat
from trainer.metrics.comparison import compare, feature_statistics
from trainer.metrics.extraction import BLOCK_SIZE, ReplicatedFunction
from trainer.metrics.frechet import frechet_from_moments
from trainer.metrics.moments import moments, row_blocks
from trainer.metrics.pairwise import cross_stats, self_stats
from trainer.metrics.stacked import StackedMetrics

FEATURES = np.random.default_rng(0).normal(size=(40, 3))
STATISTICS = feature_statistics(FEATURES, "features")
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 28, 28, 3), np.uint8)


def requested_after(num_calls):
    """A request that comes after some calls of the function that is asked for it."""
    calls = iter(range(num_calls))
    return lambda: next(calls, None) is None


LOCAL = {
    "moments": lambda: moments(row_blocks(FEATURES)),
    "frechet": lambda: frechet_from_moments(STATISTICS.moments, STATISTICS.moments),
    "self_stats": lambda: self_stats(FEATURES, 5),
    "cross_stats": lambda: cross_stats(STATISTICS.pairs, STATISTICS.pairs),
    "compare": lambda: compare(STATISTICS, feature_statistics(FEATURES, "features")),
}
"""Work that a process does without others."""
WORK = LOCAL | {"stacked": lambda: StackedMetrics(IMAGES, 4).real_vs_real()}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_a_request_ends_each_part_of_an_evaluation_early(work):
    with pytest.raises(heartbeat.Abandoned), heartbeat.abandoned_if(requested_after(1)):
        work()
    with heartbeat.abandoned_if(lambda: False):
        assert work() is not None
    heartbeat.beat()


@pytest.mark.parametrize("work", LOCAL.values(), ids=LOCAL)
def test_a_request_ends_shared_work_only_where_all_processes_know_it(work):
    with heartbeat.abandoned_if(lambda: True, is_shared=True):
        assert work() is not None
        with pytest.raises(heartbeat.Abandoned):
            ReplicatedFunction(lambda rows: (rows,))([(np.zeros(1),)])


def test_a_request_before_the_work_begins_nothing():
    begun = []
    with pytest.raises(heartbeat.Abandoned), heartbeat.abandoned_if(lambda: True):
        begun.append(True)
    assert not begun and not heartbeat.is_stop_requested()


def test_a_request_does_not_reach_other_threads_and_outer_work():
    others = []
    with heartbeat.abandoned_if(requested_after(1)):
        with heartbeat.abandoned_if(lambda: False):
            heartbeat.beat()
        thread = threading.Thread(target=lambda: (heartbeat.beat(), others.append(heartbeat.is_stop_requested())))
        thread.start()
        thread.join()
        with pytest.raises(heartbeat.Abandoned):
            heartbeat.beat()
    assert others == [False]


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_blocks_after_a_request_are_not_read(two_replicas, num_replicas):
    strategy, read = two_replicas if num_replicas == 2 else None, []

    def blocks():
        for number in range(9):
            read.append(number)
            yield (np.full(BLOCK_SIZE, number),)

    function = ReplicatedFunction(lambda rows: (rows,), strategy)
    with pytest.raises(heartbeat.Abandoned), heartbeat.abandoned_if(lambda: len(read) >= 3):
        function(blocks())
    assert len(read) == {1: 3, 2: 4}[num_replicas]
    read.clear()
    assert len(function(blocks())[0]) == 9 * BLOCK_SIZE
