"""Parts of the classify recipe: windows, mixing, losses and scores, against closed forms and
scikit-learn."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny_clap
import tiny_clips
from preparing import contents, on_cores
from sklearn import metrics as reference

from audiotrain.datasets.items import Clip
from audiotrain.evaluation.classification import average_precisions, lwlrap
from audiotrain.evaluation.classification_report import ClassificationReport
from audiotrain.features.audio import TarMember
from audiotrain.recipes.classify import training
from audiotrain.recipes.classify.dataset import (
    AugmentationSettings,
    Task,
    Windows,
    starts,
    window,
)
from audiotrain.recipes.classify.features import (
    STATISTICS,
    ClipFeatures,
    ExtractedClip,
    InputSettings,
    statistics,
)
from audiotrain.recipes.classify.training import ClassifyTraining, OptimizationSettings


@pytest.fixture
def several():
    """Targets (clips, classes) of several classes each, and scores."""
    rng = np.random.default_rng(0)
    targets = (rng.random((40, 6)) < 0.3).astype(np.float32)
    targets[np.arange(40), rng.integers(0, 6, 40)] = 1
    return targets, rng.random((40, 6))


def test_rankings_are_scikit_learns(several):
    targets, scores = several
    weights = targets.sum(axis=1)
    expected = reference.label_ranking_average_precision_score(
        targets, scores, sample_weight=weights
    )
    assert lwlrap(targets, scores) == pytest.approx(expected)
    found = training.ranking_precision(mx.array(scores), mx.array(targets)).item()
    expected = reference.label_ranking_average_precision_score(targets, scores)
    assert found == pytest.approx(expected, abs=1e-6)
    one = np.eye(6, dtype=np.float32)[targets.argmax(axis=1)]
    ranks = (scores >= (scores * one).sum(axis=1, keepdims=True)).sum(axis=1)
    found = training.ranking_precision(mx.array(scores), mx.array(one)).item()
    assert found == pytest.approx((1 / ranks).mean(), abs=1e-6)


def test_scores_of_several_classes(several):
    targets, scores = several
    found = ClassificationReport("abcdef", list(map(str, range(40))), targets, scores, True)
    assert found.numbers["map"] == pytest.approx(
        reference.average_precision_score(targets, scores, average="macro")
    )
    assert found.score == found.numbers["lwlrap"]
    row = found.by_class()[2]
    said = scores[:, 2] >= 0.5
    expected = reference.precision_recall_fscore_support(targets[:, 2] > 0, said, average="binary")
    assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(expected[:3])


def test_scores_of_one_class_name_the_classes_without_clips():
    targets = np.eye(3)[[0, 0, 1]]
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
    found = ClassificationReport("abc", ["1", "2", "3"], targets, probabilities)
    assert found.numbers["accuracy"] == pytest.approx(2 / 3)
    assert found.numbers["balanced_accuracy"] == pytest.approx(3 / 4)
    assert found.as_dict()["classes_without_clips"] == ["c"]
    assert np.isnan(average_precisions(targets, probabilities)[2])
    assert "hardest: a 0.50, b 1.00 (recall)" in found.table()


@pytest.mark.parametrize("several_classes", [False, True])
def test_losses_are_those_of_the_definitions(several_classes):
    logits = np.array([[2.0, -1, 0.5], [0, 3, -2]])
    targets = np.array([[0.7, 0.3, 0], [0, 1, 0]])
    chosen = OptimizationSettings(label_smoothing=0.1)
    module = ClassifyTraining(lambda x: x, several_classes, chosen)
    loss, found = module.compute_loss({"input": mx.array(logits), "target": mx.array(targets)})
    if several_classes:
        said = 1 / (1 + np.exp(-logits))
        expected = -(targets * np.log(said) + (1 - targets) * np.log(1 - said)).mean()
    else:
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        expected = -((0.9 * targets + 0.1 / 3) * logs).sum(axis=1).mean()
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert found["accuracy"].item() == 1


def test_windows_cover_a_long_clip_evenly_and_repeat_a_short_one():
    for length in (10, 11, 25, 99):
        covered = {frame for start in starts(length, 10) for frame in range(start, start + 10)}
        assert covered == set(range(length))
    short = window(np.arange(3.0)[:, None], 0, 7)
    assert short[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_statistics_know_levels_and_changes():
    mel = np.array([[0.0, 10.0], [2.0, 10.0]])
    found = statistics(mel).reshape(6, 2)
    np.testing.assert_allclose(found[:, 1], [10, 0, 10, 10, 10, 0])
    np.testing.assert_allclose(found[[0, 1, 5], 0], [1, 1, 2])
    assert statistics(mel[:1]).shape == (12,)


def sounds(change, several=False):
    """Two clips of different classes, augmented by `change`."""
    mels = [np.full((50, 16), -20.0, np.float32), np.full((9, 16), -40.0, np.float32)]
    clips = [ExtractedClip(Clip(str(n), None, ()), mel) for n, mel in enumerate(mels)]
    mean = np.full(16, -30, np.float32)
    return Windows(clips, np.eye(2, dtype=np.float32), 20, -60.0, several, change, mean)


OFF = dict.fromkeys(("mix", "shift", "gain", "tilt", "time_masks", "mel_masks"), 0)
OFF |= {"roll": False, "crop": 1}


def test_augmentation_that_is_off_changes_nothing():
    rng = np.random.default_rng(0)
    found = sounds(AugmentationSettings(**OFF)).get(0, rng)
    np.testing.assert_array_equal(found["input"], np.full((1, 20, 16), -20))
    np.testing.assert_array_equal(found["target"], [1, 0])


def test_mixed_samples_share_their_target_by_loudness():
    seen = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        change = AugmentationSettings(**OFF | {"mix": 1.0, "mix_range": 6.0})
        found = sounds(change).get(0, rng)
        assert found["target"].sum() == pytest.approx(1)
        if found["target"][1]:
            # The second is 20 dB below the first but for the random level: power tells the share.
            louder = (found["target"][0] - 0.5) * 12
            power = 10 ** (-20 / 10) + 10 ** ((-40 - louder) / 10)
            np.testing.assert_allclose(found["input"], 10 * np.log10(power), rtol=1e-5)
            seen.add(round(float(found["target"][0]), 3))
        both = sounds(change, several=True).get(0, np.random.default_rng(seed))["target"]
        assert set(both.tolist()) <= {0.0, 1.0}
        assert both[0] == 1
    assert len(seen) > 5
    assert 0 <= min(seen) < 0.3 < 0.7 < max(seen) <= 1


def test_augmentation_follows_from_its_generator_and_masks_with_the_mean():
    change = AugmentationSettings(**OFF | {"time_masks": 1, "gain": 4.0, "tilt": 3.0})
    shares = []
    for seed in range(10):
        rngs = (np.random.default_rng(seed) for _ in range(2))
        first, again = (sounds(change).get(0, rng)["input"] for rng in rngs)
        np.testing.assert_array_equal(first, again)
        shares.append((first == -30).all(axis=-1).mean())
    assert 0 < max(shares) <= 0.5


def test_a_class_of_other_data_is_refused():
    task = Task(("a", "b"), False)
    clip = Clip("x.wav", None, (), labels=("c",))
    with pytest.raises(ValueError, match=r"x.wav: class 'c' is none of the model's 2 \(a, b\)"):
        task.targets([clip])


@pytest.mark.parametrize("kind", [None, STATISTICS, "clap"])
def test_a_file_that_the_system_refuses_to_open_is_left_out_alone(tmp_path, monkeypatch, kind):
    on_cores(monkeypatch, 1)
    if kind == "clap":
        kind = str(tiny_clap.pretrained(tmp_path / "clap"))
    paths = [tiny_clips.tone(tmp_path / f"{n}.wav", 300 + 100 * n) for n in range(3)]
    clips = [Clip(path.name, path, ()) for path in paths]
    opened = Path.open

    def refuse(path, *args, **options):  # root may open anything, so permissions do not refuse it
        if path == paths[1]:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        extractor = ClipFeatures(InputSettings(embeddings=kind), tmp_path / "cache")
        first, problem, last = extractor.extract(clips)
    assert problem == f"{paths[1]}: can't be read: Permission denied"
    assert (first.clip, last.clip) == (clips[0], clips[2])


def test_clips_of_a_tar_that_is_gone_are_left_out(tmp_path):
    member = TarMember(tmp_path / "gone.tar", "a.wav", 512, 100)
    extractor = ClipFeatures(
        InputSettings(embeddings=str(tiny_clap.pretrained(tmp_path / "clap"))), tmp_path / "cache"
    )
    (problem,) = extractor.extract([Clip("a.wav", member, ())])
    assert problem == f"{member}: can't be read: No such file or directory"


@pytest.mark.slow
@pytest.mark.parametrize("embeddings", [None, STATISTICS])
def test_two_workers_extract_the_bytes_of_one_core(tmp_path, monkeypatch, embeddings):
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    files = [
        *(tiny_clips.tone(tmp_path / f"{n}.wav", 200 + 50 * n, 0.3 * n + 0.01) for n in range(8)),
        tmp_path / "bad.wav",
        tiny_clips.tone(tmp_path / "long.wav", 300, 61.0),
    ]
    clips = [Clip(path.name, path, ()) for path in files]
    results = []
    for cores in (1, 2):
        on_cores(monkeypatch, cores)
        features = ClipFeatures(InputSettings(embeddings=embeddings), tmp_path / f"cache{cores}")
        results.append(features.extract(clips))
        assert len(contents(tmp_path / f"cache{cores}")) == 2 * 9  # and what each lacks
    assert contents(tmp_path / "cache1") == contents(tmp_path / "cache2")
    one, two = results
    assert one[8] == two[8]
    assert "bad.wav" in one[8]
    for first, second in zip(one[:8] + one[9:], two[:8] + two[9:], strict=True):
        assert first.clip == second.clip
        np.testing.assert_array_equal(first.features, second.features)
