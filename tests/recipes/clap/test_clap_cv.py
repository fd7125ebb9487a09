"""Zero-shot and linear probe, fold by fold."""

import json

import numpy as np
import pytest
from clap_folders import save_model, write_clip

from audiotrain import config
from audiotrain.evaluation import plots
from audiotrain.recipes.clap.commands import COMMANDS
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.train import crossval


def command(*words):
    settings, function, _ = COMMANDS["cv"]
    return function(config.load(settings, [str(word) for word in words]))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A `model`, and `data`: 12 clips of two classes, two clips a player, in three folds."""
    folder = tmp_path_factory.mktemp("clap-cv")
    save_model(folder / "model")
    rows = ["file_name,caption,label,fold,player"]
    for number in range(12):
        write_clip(folder / f"data/clips/{number:02d}.wav", 1, 16000, number)
        kind = ("dog", "rain")[number % 2]
        rows.append(f"clips/{number:02d}.wav,{kind} {number},{kind},{number % 3 + 1},{number // 2}")
    (folder / "data/metadata.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(plots, "confusion_picture", lambda *_, **__: None)


def flags(place, output):
    return ["--data", place / "data", "--checkpoint", place / "model", "--output", output]


def test_a_column_says_the_folds(place, tmp_path, capsys):
    found = command(*flags(place, tmp_path / "cv"), "--fold-column", "fold")
    folds = crossval.read_folds(tmp_path / "cv")
    assert [[int(name[-6:-4]) % 3 for name in names] for names in folds] == [
        [k] * 4 for k in range(3)
    ]
    saved = json.loads((tmp_path / "cv" / "metrics.json").read_text())
    assert saved["mean"] == found["mean"]
    accuracies = [row["zero_shot_accuracy"] for row in saved["folds"]]
    assert found["mean"]["zero_shot_accuracy"] == pytest.approx(np.mean(accuracies))
    said = capsys.readouterr().out
    assert "zero_shot_accuracy" in said
    assert "fold 0 is fold 1, 1 is fold 2, 2 is fold 3\n" in said
    assert saved["classes"]["clips"] == 12


def test_groups_stay_together_and_every_clip_is_judged_once(place, tmp_path):
    words = ["--folds", 3, "--group", "player"]
    command(*flags(place, tmp_path / "cv"), *words)
    folds = crossval.read_folds(tmp_path / "cv")
    homes = [{int(name[-6:-4]) // 2 for name in names} for names in folds]
    assert sum(map(len, homes)) == 6
    files = sorted((tmp_path / "cv" / "oof").glob("*.npz"))
    scores = [np.load(file)["linear_probe"] for file in files]
    assert sum(map(len, scores)) == 12


def test_the_probe_does_not_learn_from_the_fold_it_is_scored_on(place, tmp_path, monkeypatch):
    """Embeddings that only identify the clip: a probe that learnt it would know it."""
    embed = Embedder.embed

    def noise(self, clips, *rest):
        found = embed(self, clips, *rest)
        found.__dict__["embeddings"] = np.eye(len(clips), dtype=np.float32)  # in place of its own
        return found

    monkeypatch.setattr(Embedder, "embed", noise)
    command(*flags(place, tmp_path / "cv"), "--fold-column", "fold")
    with np.load(tmp_path / "cv" / "oof" / "fold-0.npz") as arrays:
        own = arrays["linear_probe"]
    assert np.allclose(own - own[:1], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fold-column", "part"], r"12 of 12 items have none, such as .*; columns are .*fold"),
        (["--folds", "13"], "folds=13, but 12 items are of 12 groups"),
        (["--folds", "1"], "folds=1, expected 2 or more"),
    ],
)
def test_folds_that_cannot_be_are_refused(place, tmp_path, words, message):
    with pytest.raises(ValueError, match=message):
        command(*flags(place, tmp_path / "x"), *words)
