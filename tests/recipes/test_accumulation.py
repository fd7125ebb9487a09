"""Gradient accumulation and precision in the recipes: the Trainer's own, by settings."""

from types import SimpleNamespace

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from toy import trainer, weights

from audiotrain import OptimizerConfig
from audiotrain.models.chords.model import ChordModelSettings
from audiotrain.models.classifiers import EmbeddingClassifier
from audiotrain.music.chord_classes import HEAD_SIZES, IGNORE
from audiotrain.recipes.chords import training as chords
from audiotrain.recipes.chords.settings import TrainSettings as ChordsSettings
from audiotrain.recipes.chords.songs import FeatureSettings
from audiotrain.recipes.clap.settings import TrainSettings as ClapSettings
from audiotrain.recipes.classify import training as classify
from audiotrain.recipes.classify.settings import TrainSettings as ClassifySettings
from audiotrain.recipes.common import run
from audiotrain.recipes.common.recipe import Experiment
from audiotrain.train.module import TrainModule

KINDS = [ChordsSettings, ClassifySettings, ClapSettings]


def chord_module(pools: int):
    mx.random.seed(0)
    features = FeatureSettings(bins=72, bins_per_octave=12)
    model = ChordModelSettings(width=36, blocks=1, hidden=24, pools=pools, dropout=0.0)
    return chords.ChordTraining(
        features, model, chords.LossSettings(), chords.OptimizationSettings(), (0.0, 1.0)
    )


def songs(count: int, unlabelled: bool) -> list[dict]:
    """Windows; of some, different numbers of frames have no label."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, HEAD_SIZES, (count, 16, 3)).astype(np.int32)
    if unlabelled:
        for number in range(count):
            classes[number, : number % 7] = IGNORE
    features = rng.normal(size=(count, 16, 72)).astype(np.float32)
    return [{"features": features, "classes": classes}]


def classifier(multilabel: bool):
    mx.random.seed(0)
    model = EmbeddingClassifier(8, 5, hidden=16, dropout=0.0)
    return classify.ClassifyTraining(model, multilabel, classify.OptimizationSettings())


def clips(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    target = np.eye(5, dtype=np.float32)[rng.integers(5, size=count)]
    return [{"input": rng.normal(size=(count, 8)).astype(np.float32), "target": target}]


def parts(whole: list[dict], *sizes: int) -> list[dict]:
    """Batches of these sizes from one of all items."""
    ends = np.cumsum(sizes)
    return [
        {name: mx.array(array[end - size : end]) for name, array in whole[0].items()}
        for size, end in zip(sizes, ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("make", "whole"),
    [
        (lambda: chord_module(pools=0), songs(16, unlabelled=True)),
        (lambda: chord_module(pools=1), songs(16, unlabelled=False)),
        (lambda: classifier(multilabel=False), clips(16)),
        (lambda: classifier(multilabel=True), clips(16)),
    ],
    ids=["chords", "chords with pools", "classify", "classify multilabel"],
)
def test_accumulated_batches_equal_the_large_batch(tmp_path, make, whole):
    def fit(accumulate, *sizes):
        module = make()
        start = weights(module)
        run = trainer(
            tmp_path,
            accumulate_grad_batches=accumulate,
            gradient_clip_val=0.5,
            configure_optimizers=lambda module: OptimizerConfig(optim.SGD(learning_rate=0.5)),
        )
        run.fit(module, parts(whole, *sizes))
        assert run.global_step == 2
        return start, weights(module)

    start, large = fit(1, 8, 8)
    _, small = fit(3, 4, 3, 1, 2, 5, 1)
    assert max(np.abs(large[name] - start[name]).max() for name in large) > 1e-2
    for name in large:
        np.testing.assert_allclose(small[name], large[name], atol=2e-6, err_msg=name)


def test_accumulation_has_its_closed_form(tmp_path):
    """The mean over all examples of both batches, which differ in size."""

    class Shift(TrainModule):
        def __init__(self):
            super().__init__()
            self.w = mx.array(0.0)

        def compute_loss(self, batch):
            return mx.mean(mx.square(self.w - batch) / 2), {}

    run = trainer(
        tmp_path,
        accumulate_grad_batches=2,
        configure_optimizers=lambda module: OptimizerConfig(optim.SGD(learning_rate=1.0)),
    )
    module = Shift()
    run.fit(module, [mx.array([1.0, 2.0, 6.0]), mx.array([7.0])])
    assert run.global_step == 1
    assert module.w.item() == pytest.approx((1 + 2 + 6 + 7) / 4)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_each_recipe_reach_the_trainer(tmp_path, kind):
    for settings, expected in (
        (kind(), (1, "32-true")),
        (kind(gradient_accumulation_steps=2, precision="bf16-mixed"), (2, "bf16-mixed")),
    ):
        recipe = SimpleNamespace(settings=settings, name="test")
        experiment = Experiment(TrainModule(), [], [])
        found = run.build_trainer(recipe, experiment, tmp_path, steps=4).arguments
        assert (found.accumulate_grad_batches, found.precision) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0, expected 1 or more"),
        ({"precision": "16"}, "precision: found '16', expected one of 32-true, bf16-mixed"),
    ],
)
def test_settings_that_cannot_be(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


def test_an_epoch_has_fewer_steps(tmp_path):
    settings = ClassifySettings(gradient_accumulation_steps=3, epochs=2, batch_size=4, workers=0)
    recipe = SimpleNamespace(settings=settings, name="test")
    experiment = Experiment(TrainModule(), list(range(40)), [])
    made, loaders = run.make_trainer(recipe, experiment, tmp_path)
    assert len(loaders[0]) == 10
    assert made.arguments.max_steps == 2 * 4
