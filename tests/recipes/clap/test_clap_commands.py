"""The CLAP recipe from end to end, in small: train, resume."""

import csv
import signal

import mlx.core as mx
import numpy as np
import pytest
import tiny_clap
from tiny_clap import TINY, captioned, command, make_quick, read_json, tuned

from audiotrain import config
from audiotrain.models.clap import CLAP
from audiotrain.models.clap.feature_extraction import ClapFeatures, ClapFeatureSettings
from audiotrain.models.clap.tokenizer import Tokenizer
from audiotrain.recipes.clap import frozen_towers, training
from audiotrain.recipes.clap.recipe import ClapRecipe
from audiotrain.recipes.clap.settings import TrainSettings
from audiotrain.recipes.common import run as runs
from audiotrain.train import checkpoint
from audiotrain.train.callbacks import Callback
from audiotrain.utils.arrays import arrays_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that holds `data`, `cache`, the model folder `start` and the trained `run`."""
    return tmp_path_factory.mktemp("clap")


@pytest.fixture(scope="module")
def data(place):
    return captioned(place / "data")


@pytest.fixture(scope="module")
def start(place):
    return tiny_clap.pretrained(place / "start")


@pytest.fixture(scope="module")
def run(place, data, start):
    """A run on `data` from `start`, with pictures, uncompiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "Trainer", lambda **named: tiny_clap.Trainer(compile=False, **named))
        assert command(*tuned(place, place / "run")) == 0
    return place / "run"


@pytest.fixture
def quick(run, monkeypatch):
    """Small runs without what takes their time."""
    make_quick(monkeypatch)


# ---- train


def test_a_run_folder_is_complete(run):
    files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    expected = {
        "config.yaml",
        "split.json",
        "history.json",
        "metrics.csv",
        "metrics.jsonl",
        "curves.png",
        "metrics.json",
        "retrieval.csv",
        "recall.png",
        "model/config.json",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/preprocessor_config.json",
        *(
            f"checkpoints/{name}/{file}"
            for name in ("best", "last")
            for file in ("state.json", "model.safetensors")
        ),
    }
    assert expected <= files
    assert all((run / name).stat().st_size for name in files)
    assert not [name for name in files if name.split("/")[-1].startswith(".")]


def test_what_ran_is_saved_and_parts_share_no_clip(run, data):
    saved = config.load(TrainSettings, ["--config", str(run / "config.yaml")])
    assert (saved.data, saved.output, saved.steps) == (data, run, 4)
    parts = read_json(run / "split.json")["items"]
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [16, 2, 2]
    assert len({name for part in parts.values() for name in part}) == 20


def test_validations_log_retrieval_and_the_best_is_kept_by_it(run):
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    validated = [row for row in rows if row["val_loss"]]
    assert [int(row["step"]) for row in validated] == [2, 4]
    for row in validated:
        for name in ("map_at_10", "text_to_audio_recall_at_1", "audio_to_text_recall_at_1"):
            assert 0 <= float(row[f"val_{name}"]) <= 1
    state = checkpoint.load_meta(run / "checkpoints" / "last")["callbacks"]["ModelCheckpoint.1"]
    best = max(float(row["val_map_at_10"]) for row in validated)
    assert state["kept"][0][0] == pytest.approx(best)


def test_the_model_folder_has_the_best_weights_and_one_logit_scale(run, start):
    clap = CLAP.from_pretrained(run / "model")
    best, _ = checkpoint.load(run / "checkpoints" / "best")
    found = arrays_of(clap)
    for name, array in found.items():
        if name != "logit_scale_t":
            np.testing.assert_array_equal(array, best["model"][f"clap.{name}"], err_msg=name)
    assert clap.logit_scale_a == clap.logit_scale_t
    before = arrays_of(CLAP.from_pretrained(start))
    for name in ("logit_scale_a", "audio_encoder.norm.weight", "text_projection.linear2.bias"):
        assert mx.any(found[name] != before[name]), name
    for name in ("tokenizer.json", "preprocessor_config.json"):
        assert (run / "model" / name).read_bytes() == (start / name).read_bytes()


def test_one_validation_clip_lets_the_last_step_win(quick, place, tmp_path, capsys):
    """Its retrieval is perfect at every check."""
    data = captioned(tmp_path / "data", 6)
    more = ["--data", data, "--validations", 4, "--patience", 1]
    assert command(*tuned(place, tmp_path / "run", *more)) == 0
    printed = [line for line in capsys.readouterr().err.splitlines() if "all mean the same" in line]
    assert len(printed) == 1
    steps = [
        checkpoint.load_meta(tmp_path / "run" / "checkpoints" / name)["global_step"]
        for name in ("best", "last")
    ]
    assert steps == [4, 4]


def test_training_stops_when_retrieval_gets_no_better(quick, place, tmp_path, monkeypatch):
    """By mAP@10, the more the better: two validations worse than the second are the end."""
    scores = iter((0.2, 0.5, 0.4, 0.45, 0.9))
    real = training.retrieval_scores

    def scored(found):
        return dict.fromkeys(real(found), next(scores))

    monkeypatch.setattr(training, "retrieval_scores", scored)
    more = ["--steps", 10, "--validations", 10, "--patience", 2]
    assert command(*tuned(place, tmp_path / "run", *more)) == 0
    steps = [
        checkpoint.load_meta(tmp_path / "run" / "checkpoints" / name)["global_step"]
        for name in ("best", "last")
    ]
    assert steps == [2, 4]


def test_scores_are_of_the_unseen_clips(run):
    result = read_json(run / "metrics.json")
    assert (result["clips"], result["captions"]) == (2, 4)
    assert 0 < result["retrieval"]["text_to_audio_mAP@10"] <= 1


def test_a_second_run_is_the_same_and_computes_no_features(quick, run, place, monkeypatch, capsys):
    monkeypatch.setattr(ClapFeatures, "__call__", lambda *a: pytest.fail("computed again"))
    assert command(*tuned(place, place / "again")) == 0
    assert read_json(run / "metrics.json") == read_json(place / "again" / "metrics.json")
    losses = [
        [row["train_loss"] for row in read_json(folder / "history.json")["rows"]]
        for folder in (run, place / "again")
    ]
    assert losses[0] == losses[1]
    printed = capsys.readouterr().out
    assert printed.index("data in ") < printed.index("unseen: ")
    assert "caption -> nearest clip" in printed


@pytest.mark.parametrize(
    "options",
    [
        ["--loss.kind", "siglip"],
        ["--optimization.ema-decay", 0.5, "--optimization.layer-decay", 0.5],
        ["--micro-batch", 2],
        ["--checkpoint-blocks"],
        ["--augmentation.mix", 0.5, "--mode", "audio"],
        ["--augmentation.time-masks", 1, "--augmentation.time-width", 5, "--patience", 1],
        ["--mode", "projection", "--no-cache-towers"],
        ["--composed", 12, "--seed", 3],
    ],
)
def test_options_train(quick, place, tmp_path, options):
    assert command(*tuned(place, tmp_path / "run", *options)) == 0
    assert np.isfinite(read_json(tmp_path / "run" / "history.json")["rows"][-1]["train_loss"])
    assert "logit_bias" not in "".join(arrays_of(CLAP.from_pretrained(tmp_path / "run" / "model")))


def test_bfloat16_trains_float32_weights(quick, place, tmp_path):
    with pytest.warns(UserWarning, match="'bf16-mixed' on a CPU"):
        assert command(*tuned(place, tmp_path / "run", "--precision", "bf16-mixed")) == 0
    weights, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "best")
    assert {array.dtype for array in weights["model"].values()} == {mx.float32}
    assert np.isfinite(losses(tmp_path / "run")).all()


def test_without_data_and_weights_scenes_are_composed(tmp_path, monkeypatch, capsys):
    make_quick(monkeypatch)
    sizes = "--composed 30 --vocabulary 300 --model.text-config.num-hidden-layers 1".split()
    sizes += ["--model.audio-config.patch-embeds-hidden-size", 8]
    out = ["--output", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert command(*out, *sizes, *TINY, "--steps", 2) == 0
    printed = capsys.readouterr().out
    assert "unseen: 3 clips" in printed
    tokenizer = Tokenizer.read(tmp_path / "run" / "model")
    clap = CLAP.from_pretrained(tmp_path / "run" / "model")
    assert clap.config.text_config.vocab_size == tokenizer.size <= 300
    assert ClapFeatureSettings.read(tmp_path / "run" / "model").rate == 24000
    parts = read_json(tmp_path / "run" / "split.json")["groups"]
    assert len(set(parts.values())) == 3, "groups are meanings, each in one part"
    # The norm of the input knows the data before the first step: nothing is near 0 dB.
    first, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "best")
    assert first["model"]["clap.audio_encoder.batch_norm.running_mean"].max() < -20


# ---- modes


TRAINED = {
    "full": ["*"],
    "projection": [],
    "audio": ["clap.audio_encoder"],
    "text": ["clap.text_encoder"],
    "lora": [],
    "last-n": [
        "clap.audio_encoder.layers.1.blocks.1",
        "clap.audio_encoder.norm",
        "clap.text_encoder.layers.2",
        "clap.text_encoder.pooler",
    ],
}


@pytest.mark.parametrize("mode", TRAINED)
def test_what_a_mode_freezes_stays_bit_for_bit(quick, place, tmp_path, mode):
    """Weights, norms' statistics and all; and all that trains has moved."""
    options = ["--mode", mode, "--last", 1, "--optimization.ema-decay", 0.5, "--no-cache-towers"]
    assert command(*tuned(place, tmp_path / "run", *options)) == 0
    before = {f"clap.{k}": a for k, a in arrays_of(CLAP.from_pretrained(place / "start")).items()}
    arrays, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "last")
    moves = ("clap.audio_projection", "clap.text_projection", "clap.logit_scale_a", *TRAINED[mode])
    for name, array in before.items():
        after = arrays["model"][name]
        statistic = "running" in name
        trains = name.startswith(moves) or mode == "full" and name != "clap.logit_scale_t"
        if name == "clap.logit_scale_t" or mode == "full" and "key.bias" in name:
            continue  # set at the start; softmax does not feel it
        changed = bool(mx.any(after != array))
        if trains and not statistic and "key.bias" not in name and "bias_table" not in name:
            assert changed or "embeddings" in name, f"{name} did not train"
        if not trains:
            assert not changed, f"{name} trained"
    updates = [name for name in arrays["model"] if "lora_b" in name]
    assert len(updates) == (2 * (4 + 3) if mode == "lora" else 0)
    assert all(mx.any(arrays["model"][name] != 0) for name in updates)
    assert not [
        name
        for name in arrays_of(CLAP.from_pretrained(tmp_path / "run" / "model"))
        if "lora" in name
    ]


# ---- cached towers


def losses(folder):
    return [row["train_loss"] for row in read_json(folder / "history.json")["rows"]]


@pytest.mark.parametrize("mode", ["projection", "audio", "text"])
def test_cached_towers_change_nothing_and_are_computed_once(
    quick, place, tmp_path, mode, monkeypatch
):
    options = ["--mode", mode, "--augmentation.gain", 0]
    for name, more in (("live", ["--no-cache-towers"]), ("cached", []), ("again", [])):
        if name == "again":
            for tower in ("HTSAT", "RoBERTa"):
                if tower == ("HTSAT" if mode == "text" else "RoBERTa") or mode == "projection":
                    kind = getattr(
                        __import__("audiotrain.models.clap.model", fromlist=[tower]), tower
                    )
                    monkeypatch.setattr(kind, "__call__", lambda *a: pytest.fail("computed again"))
            monkeypatch.setattr(ClapRecipe, "score", lambda *a: {})
        assert command(*tuned(place, tmp_path / name, *options, *more)) == 0
    assert losses(tmp_path / "live") == pytest.approx(losses(tmp_path / "cached"), abs=2e-4)
    assert losses(tmp_path / "cached") == losses(tmp_path / "again")


def test_other_weights_and_other_clips_are_other_entries(place, tmp_path):
    tower = tiny_clap.model().audio_encoder
    first = frozen_towers.digest(tower)
    assert first == frozen_towers.digest(tiny_clap.model().audio_encoder)
    assert first != frozen_towers.digest(tiny_clap.model(seed=1).audio_encoder)
    tower.batch_norm.running_var = tower.batch_norm.running_var + 1
    assert first != frozen_towers.digest(tower)


# ---- resume


class StopAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step == self.step


@pytest.mark.slow
@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize(
    "options",
    [
        ["--optimization.ema-decay", 0.5],
        ["--mode", "projection"],
        ["--mode", "lora", "--loss.kind", "siglip", "--micro-batch", 2],
    ],
)
def test_a_resumed_run_is_the_run_that_was_not_stopped(
    quick, place, tmp_path, options, streams, cut, monkeypatch
):
    cut(streams)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert command(*tuned(place, whole, *options)) == 0
    make = runs.make_trainer

    def stopping(*arguments):
        trainer, loaders = make(*arguments)
        trainer.callbacks.insert(0, StopAt(3))
        return trainer, loaders

    monkeypatch.setattr(runs, "make_trainer", stopping)
    assert command(*tuned(place, stopped, *options)) == 0
    assert checkpoint.load_meta(stopped / "checkpoints" / "last")["global_step"] == 3
    monkeypatch.setattr(runs, "make_trainer", make)
    assert command("--output", stopped, "--resume") == 0
    (first, _), (second, _) = (
        checkpoint.load(p / "checkpoints" / "last") for p in (whole, stopped)
    )
    assert first.keys() == second.keys()
    for group in first:
        assert first[group].keys() == second[group].keys()
        for name, array in first[group].items():
            np.testing.assert_array_equal(array, second[group][name], err_msg=name)


def test_a_resumed_run_from_scratch_keeps_its_tokenizer(tmp_path, monkeypatch):
    make_quick(monkeypatch)
    out = ["--output", tmp_path / "run", "--cache", tmp_path / "cache"]
    assert command(*out, "--composed", 20, *TINY, "--steps", 1) == 0
    before = (tmp_path / "run" / "model" / "tokenizer.json").read_bytes()
    monkeypatch.setattr(ClapFeatures, "__call__", lambda *a: pytest.fail("computed again"))
    assert command(*out, "--resume", "--steps", 2) == 0
    assert (tmp_path / "run" / "model" / "tokenizer.json").read_bytes() == before
    assert read_json(tmp_path / "run" / "history.json")["rows"][-1]["step"] == 2


def test_ctrl_c_saves_and_says_how_to_continue(quick, place, tmp_path, monkeypatch, capsys):
    class CtrlC(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 2:
                signal.raise_signal(signal.SIGINT)

    make = runs.make_trainer

    def interrupted(*arguments):
        trainer, loaders = make(*arguments)
        trainer.callbacks.insert(0, CtrlC())
        return trainer, loaders

    monkeypatch.setattr(runs, "make_trainer", interrupted)
    with pytest.raises(SystemExit) as stopped:
        command(*tuned(place, tmp_path / "run"))
    assert stopped.value.code == 130
    assert f"--output {tmp_path / 'run'} --resume" in capsys.readouterr().err
    assert 2 <= checkpoint.load_meta(tmp_path / "run" / "checkpoints" / "last")["global_step"] <= 3
