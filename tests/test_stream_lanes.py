"""Walked sets and mixes: who meets which sample, how often, and where a resumed run goes on."""

import json
import multiprocessing
from itertools import islice

import numpy as np
import pytest
import torch
from miniatures_tars import header_offsets, write_shards

from fasthamer.data.augment import Strength
from fasthamer.data.crop import Box
from fasthamer.data.dataset import DatasetInfo, HandDataset, HandStream
from fasthamer.data.faults import BadSample
from fasthamer.data.loader import Feed, check_lanes
from fasthamer.data.readers.tars import TarDataset
from fasthamer.data.sample import Labels, make_item
from fasthamer.data.streams import PART_STRIDE, Indexed, Mix
from fasthamer.hand.mano import load_hand

BLANK = np.zeros((8, 8, 3), np.uint8)


class Numbered(HandDataset):
    """Blank items with their number."""

    info = DatasetInfo("Numbered")

    def __init__(self, length, first=0):
        self.length, self.first = length, first

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        return make_item(BLANK, Labels(), Box(np.array([4.0, 4.0]), 8.0), 8, self.first + key[1])


def numbers(walk, count):
    return numbers_of(islice(walk, count))


def numbers_of(items):
    return [int(item.index) % PART_STRIDE for item, _ in items]


def stream(length, first=0, seed=0):
    return Indexed(Numbered(length, first), seed, f"{first}")


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_the_lanes_of_an_indexed_set_share_every_epoch(lanes):
    walks = [stream(6).walk(lane, lanes, None, []) for lane in range(lanes)]
    for _ in range(3):
        epoch = [number for walk in walks for number in numbers(walk, 6 // lanes)]
        assert sorted(epoch) == list(range(6))
    assert numbers(stream(6).walk(0, 1, None, []), 6) != numbers(stream(6, seed=1).walk(0, 1, None, []), 6)


def test_a_mix_draws_by_weight_and_each_part_goes_through_its_own_epochs():
    mix = Mix([stream(100), stream(50, 1000), stream(10, 2000)], [5, 4, 1], seed=0)
    drawn = np.array(numbers(mix.walk(0, 1, None, []), 3000))
    shares = [np.mean(drawn // 1000 == part) for part in range(3)]
    np.testing.assert_allclose(shares, [0.5, 0.4, 0.1], atol=0.03)
    first = drawn[drawn < 100][:100]
    assert sorted(first.tolist()) == list(range(100))
    last = drawn[drawn >= 2000][:40].reshape(4, 10) - 2000
    assert all(sorted(epoch) == list(range(10)) for epoch in last.tolist())


def test_a_mixs_lanes_draw_differently_and_go_on_from_any_place():
    mix = Mix([stream(7), stream(5, 1000)], [0.5, 0.5], seed=3)
    one = list(islice(mix.walk(0, 2, None, []), 30))
    assert numbers_of(one) != numbers(mix.walk(1, 2, None, []), 30)
    for stop in (0, 7, 28):
        place = json.loads(json.dumps(one[stop][1]))
        assert numbers(mix.walk(0, 2, place, []), 29 - stop) == numbers_of(one[stop + 1 :])
    with pytest.raises(ValueError, match="a mix of 2 sets, not 1"):
        next(Mix([stream(7)], [1], 3).walk(0, 2, one[0][1], []))


def test_a_mix_goes_on_behind_the_draws_that_are_made_at_once():
    mix = Mix([stream(7), stream(5, 1000)], [0.5, 0.5], seed=3, choices=4)
    whole = list(islice(mix.walk(0, 1, None, []), 12))
    assert numbers(mix.walk(0, 1, whole[5][1], []), 6) == numbers_of(whole[6:])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -2.0], [1.0, float("nan")]])
def test_weights_must_be_positive_one_for_each_set(weights):
    with pytest.raises(ValueError, match="a positive weight for each of its 2 sets"):
        Mix([stream(2), stream(2)], weights, 0)


def test_a_fraction_of_a_mixs_samples_keeps_labels():
    assert isinstance(Mix([stream(10)], [1], 0).partly_labelled(0.5, only=True), Mix)
    only = stream(10).partly_labelled(0.3, only=True)
    assert len(set(numbers(only.walk(0, 1, None, []), 30))) == 3


# --- with processes


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    root = tmp_path_factory.mktemp("tars")
    write_shards(root, shards=8, samples=6)
    return root


def tars(root):
    return TarDataset(root, load_hand("embedded"), 32, Strength())


def _collect(root, rank, count, queue):
    torch.set_num_threads(1)
    feed = Feed(tars(root), batch=3, seed=0, rank=rank, processes=2, workers=2)
    source = feed.batches()
    queue.put((rank, [batch.index.tolist() for batch in islice(source, count)]))
    source.close()


def test_two_processes_with_two_workers_each_see_every_sample_once_an_epoch(shards):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_collect, args=(shards, rank, 16, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(queue.get(timeout=300) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    everything = sorted(shard * 1_000_000 + i for shard in range(8) for i in range(6))
    for epoch in (0, 1):  # 48 samples: 8 batches of 3 for each process
        seen = [i for rank in range(2) for batch in found[rank][8 * epoch : 8 * epoch + 8] for i in batch]
        assert sorted(seen) == everything


def taken(root, count, workers, first_batch=0, position=None):
    feed = Feed(tars(root), batch=4, seed=0, workers=workers)
    source = feed.batches(first_batch, position)
    batches = list(islice(source, count))
    source.close()
    return batches, feed


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_feed_meets_what_the_uninterrupted_one_would_have_met(shards, workers):
    whole, _ = taken(shards, 9, workers)
    for stop in (1, 5):
        _, feed = taken(shards, stop, workers)
        position = json.loads(json.dumps(feed.position))
        rest, _ = taken(shards, 9 - stop, workers, stop, position)
        for one, other in zip(whole[stop:], rest, strict=True):
            assert torch.equal(one.index, other.index) and torch.equal(one.image, other.image)


def test_what_a_worker_skips_is_reported_to_the_main_process(shards, tmp_path):
    (keys,) = write_shards(tmp_path, shards=1, samples=5)
    path = tmp_path / "000000.tar"
    content = bytearray(path.read_bytes())
    begin = header_offsets(path)[f"{keys[2]}.data.pyd"] + 512
    content[begin : begin + 20] = b"\x80" * 20
    path.write_bytes(content)
    _, feed = taken(tmp_path, 3, 1)
    assert [line.split(": ")[:2] for line in feed.skipped] == [[str(path), keys[2]]]  # once, however often it is met


def test_shards_of_which_nothing_can_be_read_end_the_training_with_one_line(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"nothing" * 500)
    with pytest.raises(BadSample, match=r"^1 shards in .*: not one sample can be read .*no header at byte 0"):
        taken(tmp_path, 1, 1)


def test_another_number_of_lanes_or_processes_is_refused():
    facts = {"step": 3, "lanes": [[None, None]]}
    check_lanes(facts, 1, 2)
    check_lanes({"step": 3}, 5, 5)
    with pytest.raises(ValueError, match=r"in 1 processes with 2 loader workers each, not 1 with 3.*DATA\.WORKERS 2"):
        check_lanes(facts, 1, 3)
    check_lanes({"step": 3, "processes": 2}, 2, 0)
    with pytest.raises(ValueError, match=r"the run trains in 2 processes, not 1.*start as many"):
        check_lanes({"step": 3, "processes": 2}, 1, 0)


def test_a_stream_is_no_indexed_set():
    assert isinstance(stream(2), HandStream) and not hasattr(stream(2), "__len__")
