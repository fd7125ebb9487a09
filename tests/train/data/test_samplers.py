"""What each sampler promises of an epoch, and that passes with any of them can be resumed."""

from functools import partial

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import trainer

from audiotrain import OptimizerConfig, TrainModule
from audiotrain.train.data.collate import pad_collate
from audiotrain.train.data.loader import DataLoader, Dataset
from audiotrain.train.data.samplers import (
    BucketSampler,
    GroupSampler,
    Sampler,
    WeightedRandomSampler,
)


class Noisy(Dataset):
    """Samples with random noise of their own."""

    def __init__(self, samples: int):
        self.samples = samples

    def __len__(self):
        return self.samples

    def get(self, index, rng):
        return {"index": index, "noise": rng.standard_normal(4).astype(np.float32)}


def epochs(sampler, count):
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    return found


LENGTHS = [int(length) for length in np.random.default_rng(5).integers(1, 90, size=37)]
GROUPS = [index // 3 for index in range(37)]


def make(kind: str, seed: int = 4):
    """A sampler over 37 samples, and its place among the loader's settings."""
    return {
        "weights": lambda: {"sampler": WeightedRandomSampler(LENGTHS, seed=seed), "batch_size": 5},
        "weights once": lambda: {
            "sampler": WeightedRandomSampler(LENGTHS, 20, replacement=False, seed=seed),
            "batch_size": 5,
            "drop_last": True,
        },
        "groups": lambda: {"batch_sampler": GroupSampler(GROUPS, 6, seed=seed)},
        "buckets": lambda: {"batch_sampler": BucketSampler(LENGTHS, 6, buckets=3, seed=seed)},
    }[kind]()


KINDS = ["weights", "weights once", "groups", "buckets"]


# --- each sampler


def test_weights_are_proportions_and_repeats_have_their_own_noise():
    weights = np.array([0.0, 1.0, 3.0])
    sampler = WeightedRandomSampler(weights, num_samples=4000)
    (batch,) = DataLoader(Noisy(3), 4000, sampler=sampler, mlx_transforms=())
    shares = np.bincount(batch["index"], minlength=3) / 4000
    np.testing.assert_allclose(shares, weights / 4, atol=0.03)
    assert shares[0] == 0
    assert len(np.unique(batch["noise"], axis=0)) == 4000


def test_without_replacement_none_comes_twice_and_heavy_ones_come_first():
    weights = np.array([8.0, 1, 1, 1, 1, 0])
    draws = epochs(WeightedRandomSampler(weights, 5, replacement=False), 2000)
    assert all(sorted(draw) == [0, 1, 2, 3, 4] for draw in draws)
    first = np.mean([draw[0] == 0 for draw in draws])
    assert first == pytest.approx(8 / 12, abs=0.04)
    # The second is the heavy one with chance 4/12 * 8/11, as when drawing from an urn.
    assert np.mean([draw[1] == 0 for draw in draws]) == pytest.approx(4 / 12 * 8 / 11, abs=0.04)


@settings(deadline=None, max_examples=200)
@given(
    groups=st.lists(st.integers(0, 7), min_size=1, max_size=60),
    batch_size=st.integers(1, 12),
    epoch=st.integers(0, 3),
)
def test_groups_never_meet_in_a_batch(groups, batch_size, epoch):
    sampler = GroupSampler([f"song {group}" for group in groups], batch_size)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(sum(batches, [])) == list(range(len(groups)))
    for batch in batches:
        names = [groups[index] for index in batch]
        assert len(set(names)) == len(names)
    sizes = {len(batch) for batch in batches}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert len(batches) == max(-(-len(groups) // batch_size), max(np.bincount(groups)))


@settings(deadline=None, max_examples=200)
@given(groups=st.lists(st.integers(0, 7), min_size=1, max_size=60), data=st.data())
def test_full_batches_of_groups_are_as_many_as_there_can_be(groups, data):
    sizes = np.bincount(groups)
    batch_size = data.draw(st.integers(1, np.count_nonzero(sizes)))
    sampler = GroupSampler(groups, batch_size, drop_last=True)
    batches = list(sampler)
    assert {len(batch) for batch in batches} == {batch_size}
    assert len(batches) == len(sampler)
    assert len(set(sum(batches, []))) == len(batches) * batch_size
    for batch in batches:
        assert len({groups[index] for index in batch}) == batch_size
    more = len(batches) + 1
    assert np.minimum(sizes, more).sum() < more * batch_size


def test_groups_mix_anew_in_every_epoch():
    """Any two samples of different groups meet, and about equally often."""
    groups = [index // 4 for index in range(48)]
    met = np.zeros((48, 48))
    found = epochs(GroupSampler(groups, 8), 400)
    for batches in found:
        for batch in batches:
            met[np.ix_(batch, batch)] += 1
    others = np.equal.outer(groups, groups)
    assert met[others & ~np.eye(48, dtype=bool)].max() == 0
    expected = 400 * 7 / 44
    assert met[~others].min() > 0.5 * expected
    assert met[~others].max() < 1.6 * expected
    # Neighbours of a group's samples in two batches are different groups.
    overlaps = []
    for batches in found:
        one, other = [set(np.array(groups)[batch]) for batch in batches if set(batch) & {0, 1}]
        overlaps.append(len(one & other) - 1)
    assert np.mean(overlaps) == pytest.approx(7 * 7 / 11, abs=0.7)


@settings(deadline=None, max_examples=100)
@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    buckets=st.one_of(st.integers(1, 6), st.just([7, 20, 50])),
    drop_last=st.booleans(),
)
def test_buckets_bound_the_shapes(lengths, batch_size, buckets, drop_last):
    sampler = BucketSampler(lengths, batch_size, buckets, drop_last=drop_last)
    items = [{"x": np.ones(length)} for length in lengths]
    collate = partial(pad_collate, lengths=sampler.boundaries)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    given_out = sum(batches, [])
    assert len(set(given_out)) == len(given_out)
    assert len(given_out) == (len(batches) * batch_size if drop_last else len(lengths))
    shapes = {collate([items[index] for index in batch])["x"].shape for batch in batches}
    assert {shape[1] for shape in shapes} <= set(sampler.boundaries)
    short = [shape for shape in shapes if shape[0] != batch_size]
    assert len(short) <= (not drop_last)
    assert len(shapes) - len(short) <= len(sampler.boundaries)


def test_buckets_are_about_equally_full_and_save_padding():
    sampler = BucketSampler(np.arange(1, 101), 5, buckets=4)
    assert sampler.boundaries == (25, 50, 75, 100)
    batches, again = epochs(sampler, 2)
    assert batches != again
    padded = sum(len(batch) * (max(batch) // 25 + 1) * 25 for batch in batches)
    assert padded == 5 * 5 * (25 + 50 + 75 + 100)


def test_what_is_left_of_a_bucket_joins_the_next():
    assert list(BucketSampler([5, 1, 5, 2], 2, [2, 5], shuffle=False)) == [[1, 3], [0, 2]]
    assert list(BucketSampler([5, 1, 5, 2], 3, [2, 5], shuffle=False)) == [[1, 3, 0], [2]]
    assert BucketSampler([7, 7, 7], 2, buckets=4).boundaries == (7,)


class Ragged(TrainModule):
    def __init__(self):
        super().__init__()
        self.w = mx.ones((1,))

    def compute_loss(self, batch):
        return mx.sum(self.w * batch["x"] * batch["x_mask"]) / mx.sum(batch["x_mask"]), {}

    def configure_optimizers(self):
        return OptimizerConfig(optim.SGD(learning_rate=0.1))


def test_a_compiled_step_is_traced_once_for_each_bucket(tmp_path):
    items = [{"x": np.ones(length, np.float32)} for length in LENGTHS * 2]
    sampler = BucketSampler(LENGTHS * 2, 4, buckets=3)
    collate = partial(pad_collate, lengths=sampler.boundaries)
    run = trainer(tmp_path, max_epochs=3)
    run.fit(Ragged(), DataLoader(items, batch_sampler=sampler, collate_fn=collate))
    assert run.global_step == 3 * 19
    assert run.trace_count == 3 + 1  # 74 samples: the last batch has two


# --- all samplers


@pytest.mark.parametrize("kind", KINDS)
def test_order_depends_on_seed_and_epoch_alone(kind):
    def sampler(seed):
        settings = make(kind, seed)
        return settings.get("sampler") or settings["batch_sampler"]

    first = epochs(sampler(1), 3)
    assert first == epochs(sampler(1), 3)
    assert all(len(epoch) == len(sampler(1)) for epoch in first)
    assert first[0] != first[1] != first[2]
    assert first[0] != epochs(sampler(2), 1)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 0)])
def test_resuming_inside_an_epoch(kind, before, after):
    def loader(workers, seed=4):
        return DataLoader(Noisy(37), num_workers=workers, mlx_transforms=(), **make(kind, seed))

    whole = loader(0)
    expected = [list(whole) for _ in range(3)]
    orders = [np.concatenate([batch["index"] for batch in epoch]).tolist() for epoch in expected]
    assert orders[0] != orders[1] != orders[2]
    for consumed in (0, 1, 3, len(whole)):
        part = loader(before)
        part.set_epoch(1)
        stream = iter(part)
        for _ in range(consumed):
            next(stream)
        resumed = loader(after, seed=9)  # the saved seeds count
        resumed.load_state_dict(part.state_dict())
        resumed.set_epoch(1)
        found = [list(resumed), list(resumed)]
        for batches, wanted in zip(found, (expected[1][consumed:], expected[2]), strict=True):
            assert len(batches) == len(wanted)
            for batch, want in zip(batches, wanted, strict=True):
                np.testing.assert_array_equal(batch["index"], want["index"])
                np.testing.assert_array_equal(batch["noise"], want["noise"])


def test_a_sampler_of_ones_own():
    class Backwards(Sampler):
        def __iter__(self):
            return iter([2, 1, 0])

        def __len__(self):
            return 3

    loader = DataLoader([5, 6, 7], 2, sampler=Backwards(), mlx_transforms=())
    assert [batch.tolist() for batch in loader] == [[7, 6], [5]]
    Backwards.__len__ = lambda self: 4
    with pytest.raises(ValueError, match="Backwards gave 3 in epoch 1, but its length is 4"):
        list(loader)


# --- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightedRandomSampler([0, 0]), "weights: all are zero"),
        (lambda: WeightedRandomSampler([1, -1]), "weights: expected one finite"),
        (lambda: WeightedRandomSampler([np.nan]), "weights: expected one finite"),
        (lambda: WeightedRandomSampler([[1]]), "weights: expected one finite"),
        (lambda: WeightedRandomSampler([1], 0), "num_samples=0: expected a whole"),
        (lambda: WeightedRandomSampler([1, 0], 2, False), "num_samples=2: expected at most 1"),
        (lambda: WeightedRandomSampler([1], seed=-1), "seed=-1"),
        (lambda: GroupSampler([], 2), "groups: .* found none"),
        (lambda: GroupSampler([1, 1], 2, drop_last=True), "batch_size=2: .* the 1 groups"),
        (lambda: GroupSampler([1, 2], 0), "batch_size=0"),
        (lambda: BucketSampler([1.5, 2], 2), "lengths: expected one whole number per sample"),
        (lambda: BucketSampler([], 2), "lengths: "),
        (lambda: BucketSampler([1], 2, buckets=0), "buckets=0: expected a whole"),
        (lambda: BucketSampler([9], 2, buckets=[4, 8]), "longest sample has length 9"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_sampler_past_the_dataset_is_an_error():
    loader = DataLoader([1, 2], sampler=WeightedRandomSampler([0, 0, 1]))
    with pytest.raises(ValueError, match=r"sampler gave indices 2..2, expected 0..1"):
        list(loader)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": [1, 2]}, "sampler is a list, expected a Sampler"),
        ({"sampler": WeightedRandomSampler([1]), "shuffle": True}, "shuffle=True together with"),
        ({"batch_sampler": GroupSampler([1], 1), "batch_size": 2}, "batch_sampler together with"),
        ({"batch_sampler": GroupSampler([1], 1), "shuffle": True}, "batch_sampler together with"),
    ],
)
def test_one_thing_gives_the_order(settings, message):
    with pytest.raises(ValueError, match=message):
        DataLoader([1, 2, 3], **settings)
