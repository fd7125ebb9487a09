"""Settings of a whole run: files that include others, presets, overrides, every mistake at once."""

import json
from pathlib import Path

import pytest
import yaml

from audiotrain.config import to_plain
from audiotrain.config.yaml_files import VERSION, preset_names
from audiotrain.train import callbacks
from audiotrain.train.declarative import names
from audiotrain.train.declarative.config import (
    PRESETS,
    OptimizerSettings,
    TrainerConfig,
    get_trainer_config,
)

SEED = """\
optimizer:
  type: adamw
  learning_rate: 2e-5
  weight_decay: 0.01

scheduler:
  type: cosine
  warmup_ratio: 0.1

data:
  batch_size: 32
  num_workers: 8

training:
  num_epochs: 10
  eval_strategy: epoch
  early_stopping: true

kaggle:
  competition_name: titanic
  cv_folds: 5
  enable_ensemble: true
"""


def file(folder, text, name="run.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems(config, **overrides) -> list[str]:
    with pytest.raises(ValueError, match=".") as caught:
        get_trainer_config(config, **overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_groups_and_keys_of_a_file(tmp_path, suffix):
    text = SEED if suffix == "yaml" else json.dumps(yaml.safe_load(SEED)).replace('"2e-5"', "2e-5")
    config = get_trainer_config(file(tmp_path, text, f"run.{suffix}"))
    assert config.optimizer.type == "adamw"
    assert config.optimizer.learning_rate == 2e-5
    assert config.scheduler.warmup_ratio == 0.1
    assert (config.data.batch_size, config.data.num_workers) == (32, 8)
    assert config.training.early_stopping.enabled
    assert config.competition.competition_name == "titanic"
    assert config.competition.cv_folds == 5


def test_what_is_saved_is_read_as_the_same(tmp_path):
    config = get_trainer_config(
        "competition",
        callbacks=[{"type": "EMA", "decay": 0.5, "note": "5", "more": {"deep": [1, None, True]}}],
        optimizer={"options": {"betas": [0.9, 2e-5]}},
        output_dir=tmp_path / "run",
        max_time="00:00:01:00",
    )
    for name in ("config.yaml", "config.json"):
        config.save(tmp_path / name)
        assert get_trainer_config(tmp_path / name) == config
    assert get_trainer_config(tmp_path) == config  # a run folder
    assert get_trainer_config(to_plain(config)) == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["version"] == VERSION


@pytest.mark.parametrize("name", preset_names(PRESETS))
def test_presets_differ_from_the_defaults_and_are_described(name):
    assert get_trainer_config(name) != TrainerConfig()
    assert (PRESETS / f"{name}.yaml").read_text().startswith("# ")
    assert {"quick_test", "development", "production", "competition"} <= set(preset_names(PRESETS))


def test_overrides_go_over_files_by_name(tmp_path):
    path = file(tmp_path, SEED)
    config = get_trainer_config(
        path,
        learning_rate=1,
        num_epochs=20,
        batch_size=64,
        early_stopping=False,
        scheduler={"type": "linear"},
        **{"optimizer.type": "lion"},
    )
    assert isinstance(config.optimizer.learning_rate, float)
    assert (config.optimizer.learning_rate, config.optimizer.type) == (1.0, "lion")
    assert config.optimizer.weight_decay == 0.01
    assert config.scheduler.type == "linear"
    assert config.scheduler.warmup_ratio == 0.1
    assert (config.training.num_epochs, config.data.batch_size) == (20, 64)
    assert not config.training.early_stopping.enabled
    config = get_trainer_config(path, early_stopping={"patience": 2})
    assert config.training.early_stopping.enabled
    assert config.training.early_stopping.patience == 2
    given = OptimizerSettings("sgd", 0.5)
    assert get_trainer_config(path, optimizer=given).optimizer == given
    assert get_trainer_config(config, optimizer=given).training == config.training


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"type": "sgd"}, "type: could be optimizer.type or scheduler.type: give one"),
        ({"learnin_rate": 1}, "learnin_rate: no such setting (did you mean"),
        ({"optimizer": {"rate": 1}}, "optimizer.rate: no such setting"),
        ({"learning_rate": "fast"}, "optimizer.learning_rate: found 'fast', expected a number"),
        ({"learning_rate": "2e-5"}, "optimizer.learning_rate: found '2e-5', expected a number"),
        ({"batch_size": 0}, "data.batch_size=0, expected 1 or more"),
        ({"optimizer": 3}, "optimizer: found 3, expected settings of its own"),
        ({"precision": "bf16"}, "training.precision: found 'bf16', expected one of 32-true"),
        ({"output_dir": object()}, "training.output_dir: found <object"),
        ({"eval_strategy": "steps"}, "eval_strategy is 'steps', but eval_steps is not given"),
        ({"eval_steps": 5}, "eval_steps is 5, but eval_strategy is 'epoch'"),
        ({"callbacks": [{"decay": 1}]}, "callbacks: number 1: no type, expected"),
        ({"layer_decay": 0.5}, "layer_decay=0.5, but layers, which it is for, is empty"),
        ({"register_model": True, "loggers": ["mlflow"]}, "register_model is true, but model_na"),
        ({"log_models": True}, "log_models or register_model is true, but loggers does not have"),
        ({"learning_rate": float("inf")}, "optimizer.learning_rate=inf, expected more than 0"),
        ({"weight_decay": float("inf")}, "optimizer.weight_decay=inf, expected 0 or more"),
        ({"max_time": "abc"}, "max_time is 'abc', expected days:hours:minutes:seconds"),
        ({"max_time": 0}, "max_time is 0.0, expected more than 0 seconds"),
        ({"limit_train_batches": -1}, "training.limit_train_batches=-1, expected 1 or more b"),
        ({"limit_train_batches": 0}, "training.limit_train_batches=0, expected 1 or more bat"),
        ({"limit_val_batches": 1.5}, "training.limit_val_batches=1.5, expected 0 or more bat"),
        ({"limit_val_batches": 0.0}, "training.limit_val_batches=0.0, expected 0 or more bat"),
        ({"seed": -1}, "training.seed=-1, expected 0 or more"),
        ({"trainer": "defalt"}, "trainer: found 'defalt' (did you mean default?), expected one of"),
        ({"kaggle": {"cv_folds": 1}}, "competition.cv_folds=1, expected 2 or more"),
        ({"kagle": {"cv_folds": 3}}, "kagle: no such setting"),
        ({"optimizer": {1: 2}}, "optimizer.1: no such setting"),
    ],
)
def test_overrides_that_cannot_be(override, message):
    (told,) = problems("production", **override)
    assert told.startswith(message)


def test_all_mistakes_of_a_file_are_told_with_their_lines(tmp_path):
    path = file(
        tmp_path,
        "optimizer:\n  learning_rate: -2\n  weigt_decay: 1\nkaggle:\n  cv_folds: 1\n"
        "training:\n  early_stopping: maybe\n  eval_strategy: always\ndata: 3\ncallbacks: EMA\n"
        "optimizer:\n  type: sgd\nversion: 1\n",
    )
    assert problems(path) == [
        f"{path}:11: key 'optimizer' is given twice",
        f"{path}:3: optimizer.weigt_decay: no such setting (did you mean optimizer.weight_decay?)",
        f"{path}:9: data: found '3', expected settings of its own: data.batch_size, "
        f"data.num_workers, data.shuffle, data.tta",
        f"{path}:2: optimizer.learning_rate=-2.0, expected more than 0",
        f"{path}:8: training.eval_strategy: found 'always', expected one of no, steps, epoch",
        f"{path}:7: training.early_stopping.enabled: found 'maybe', expected true or false",
        f"{path}:5: competition.cv_folds=1, expected 2 or more",
        f"{path}:10: callbacks: found 'EMA', expected a list, each keys and values",
    ]


def test_misspelt_names_of_a_file_are_told_at_once_with_their_lines(tmp_path):
    path = file(
        tmp_path,
        "optimizer:\n  type: adamv\nscheduler: {type: cosin}\ntrainer: defalt\n"
        "callbacks:\n- type: EMA\n- type: EarlyStoping\ntraining:\n  limit_val_batches: -1\n"
        "  max_time: abc\nmodel: {width: 3}\n",
    )
    told = [line.partition(", expected")[0] for line in problems(path, trainers="default")]
    assert told == [
        f"trainers: no such setting{' (did you mean trainer?)'}",
        f"{path}:4: trainer: found 'defalt' (did you mean default?)",
        f"{path}:11: model: no type",
        f"{path}:2: optimizer.type: found 'adamv' (did you mean adam?)",
        f"{path}:3: scheduler.type: found 'cosin' (did you mean cosine?)",
        f"{path}:10: max_time is 'abc'",
        f"{path}:9: training.limit_val_batches=-1",
        f"{path}:5: callbacks: number 2: found 'EarlyStoping' (did you mean EarlyStopping?)",
    ]


def test_mistakes_of_a_dict_and_of_overrides_are_told_together():
    given = {"optimizer": {"type": "adamv"}, "data": {"batch_size": 0}, "speed": 1}
    told = problems(given, learning_rate=-1, trainer="defalt", sed=3)
    assert [line.partition(" ")[0] for line in told] == [
        "speed:",
        "sed:",
        "trainer:",
        "optimizer.type:",
        "optimizer.learning_rate=-1.0,",
        "data.batch_size=0,",
    ]


def test_names_with_a_dot_are_looked_for_when_they_are_needed():
    config = get_trainer_config({"optimizer": {"type": "no.such.Thing"}, "trainer": "mine.Own"})
    assert (config.optimizer.type, config.trainer) == ("no.such.Thing", "mine.Own")


def test_all_callbacks_have_short_names():
    others = {"Callback", "Monitor"}
    assert sorted(names.CALLBACKS) == sorted(set(callbacks.__all__) - others)


@pytest.mark.parametrize("config", ["production", TrainerConfig(), {"kaggle": {"cv_folds": 4}}])
def test_kaggle_is_another_name_of_competition_everywhere(config):
    found = get_trainer_config(config, kaggle={"competition_name": "titanic"})
    assert found.competition.competition_name == "titanic"
    assert found.competition.cv_folds == (4 if isinstance(config, dict) else 5)
    assert get_trainer_config(config, **{"kaggle.cv_folds": 7}).competition.cv_folds == 7


@pytest.mark.parametrize("config", [None, 3, ["production"]])
def test_what_is_no_config(config):
    (told,) = problems(config)
    assert told.startswith(f"config is {config!r}, expected a preset's name, a file, a run folder,")


def test_a_file_goes_over_what_it_includes(tmp_path):
    (tmp_path / "inner").mkdir()
    file(tmp_path, "include: production\ndata: {batch_size: 3, num_workers: 1}\n", "inner/a.yaml")
    file(tmp_path, '{"data": {"num_workers": 2}}', "b.json")
    path = file(tmp_path, "training: {num_epochs: 7}\ninclude: [inner/a.yaml, b.json]\n")
    config = get_trainer_config(path)
    assert (config.data.batch_size, config.data.num_workers) == (3, 2)
    assert config.training.num_epochs == 7
    assert config.training.ema_decay == get_trainer_config("production").training.ema_decay


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"run": "include: run.yaml\n"}, "run.yaml:1: include goes in a circle: run.yaml -> run"),
        (
            {"run": "data: {}\ninclude: a.yaml", "a": "include: b.yaml", "b": "include: [a.yaml]"},
            "b.yaml:1: include goes in a circle: a.yaml -> b.yaml -> a.yaml",
        ),
        ({"run": "include: no.yaml\n"}, "run.yaml:1: include FOLDER/no.yaml: cannot be read: No"),
        ({"run": "include: prodction\n"}, "run.yaml:1: include: no preset 'prodction' (did you me"),
        ({"run": "include: {a: b}\n"}, "run.yaml:1: include: expected a file's name"),
        (
            {"run": "version: 3\n"},
            "run.yaml:1: version: found '3', expected 1 to 2; pip",
        ),
        ({"run": "version: new\n"}, "run.yaml:1: version: found 'new', expected 1 to 2"),
        ({"run": "- a\n"}, "run.yaml:1: expected lines of `key: value`"),
        ({"run": "include: a.yaml", "a": "data: [\n"}, "a.yaml:2: not valid YAML"),
        ({"run": "data: {}\n? [a, b]\n: 1\n"}, "run.yaml:2: a list or dict as a key, expected te"),
        ({"run": "data:\n  ? {a: b}\n  : 1\n"}, "run.yaml:2: a list or dict as a key, expected"),
        ({"run": "model: {a: [{? [b] : 1}]}\n"}, "run.yaml:1: a list or dict as a key, expected"),
        ({"run": "model: &a {type: x, b: *a}\n"}, "run.yaml:1: an anchor's alias is inside it"),
        ({"run": "\nmodel: {b: &a [1, [*a]]}\n"}, "run.yaml:2: an anchor's alias is inside it"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, files, message):
    for name, text in files.items():
        file(tmp_path, text, f"{name}.yaml")
    (told,) = problems(tmp_path / "run.yaml")
    assert told.removeprefix(f"{tmp_path}/").startswith(message.replace("FOLDER", str(tmp_path)))


def test_an_alias_of_what_is_beside_it_is_taken(tmp_path):
    path = file(tmp_path, "model: {type: a.B, first: &a [1, 2], second: *a}\n")
    assert get_trainer_config(path).model["second"] == [1, 2]


def test_two_ways_to_one_file_are_no_circle(tmp_path):
    for name, text in {"a": "include: c.yaml", "b": "include: c.yaml", "c": "data: {}"}.items():
        file(tmp_path, text, f"{name}.yaml")
    path = file(tmp_path, "include: [a.yaml, b.yaml]")
    assert get_trainer_config(path) == TrainerConfig()


def test_names_of_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (told,) = problems("quicktest")
    assert told.startswith("config: no preset 'quicktest' (did you mean quick_test?), expected one")
    assert "no.yaml: cannot be read: No such file" in problems("no.yaml")[0]
    Path("folder").mkdir()
    assert problems("folder") == ["folder: no config.yaml, so this is no run folder"]
