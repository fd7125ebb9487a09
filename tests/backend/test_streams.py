"""by_parts: the same numbers as at once, on several streams, again and again."""

import os
import subprocess
import sys

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from audiotrain.backend import blas, cpu_ops, streams
from audiotrain.backend.ops import gelu, linear, map_batch
from audiotrain.models.chords import ChordModelSettings, FrameChordModel
from audiotrain.models.clap import CLAP, CLAPConfig
from audiotrain.recipes import chords, clap, classify
from audiotrain.train.engine.memory import checkpoint_layers

RECIPES = {"chords": chords, "clap": clap, "classify": classify}


@pytest.fixture(autouse=True)
def on_cpu():
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("a GPU is not cut")


def chord_model():
    mx.random.seed(0)
    model = FrameChordModel(48, ChordModelSettings(width=24, hidden=24, blocks=2, dropout=0.2))
    mx.eval(model.parameters())
    return model


def gradients(model, features):
    def loss_of(features):
        return sum(mx.square(logits).mean() for logits in model(features).values())

    return nn.value_and_grad(model, loss_of)(features)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_parts_have_the_values_and_gradients_of_the_whole(cut, compiled, twice):
    features = mx.random.normal((5, 32, 48), key=mx.random.key(1))
    model = chord_model().eval()
    if twice:
        checkpoint_layers(model.trunk.blocks)

    def found():
        def of(features):
            return gradients(model, features)

        return dict(tree_flatten((mx.compile(of) if compiled else of)(features)))

    cut(1)
    whole = found()
    cut(3)
    for name, value in found().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_parts_make_of_a_weight_is_made_once_and_so_is_its_gradient(cut):
    made, asked = [], []

    def backward(_, cotangent, __):
        asked.append(len(cotangent))
        return cotangent[0]

    def repeated(weight):
        made.append(streams.part())
        copies = cpu_ops.with_gradient(backward)(lambda weight: mx.stack([weight, 0 * weight]))
        return copies(weight)

    def loss(x, weight):
        def of(x):
            return (
                x * streams.from_weight(repeated, weight)[0]
                + streams.from_weight(repeated, weight)[1]
            )

        return mx.square(map_batch(of, x)).sum()

    x, weight = mx.arange(24.0).reshape(8, 3), mx.array([1.0, 2.0, 3.0])
    for count in (3, 1):
        cut(count)
        made.clear(), asked.clear()
        gradient = mx.grad(loss, argnums=1)(x, weight)
        times = 1 if count > 1 else 2
        assert len(made) == len(asked) == times
        np.testing.assert_allclose(gradient, 2 * mx.square(x).sum(axis=0) * weight, rtol=1e-6)


def test_each_part_has_a_stream_and_all_examples_their_place(cut):
    cut(3)
    seen = []

    def doubled(x, y):
        seen.append((mx.default_stream(mx.cpu), len(x), len(y)))
        return [2 * x, {"sum": x + y}]

    x, y = mx.arange(8.0).reshape(8, 1), mx.ones((8, 1))
    twice, others = map_batch(doubled, x, y)
    assert [length for _, length, _ in seen] == [3, 3, 2] == [length for *_, length in seen]
    assert len({str(stream) for stream, *_ in seen}) == 3
    assert mx.array_equal(twice, 2 * x)
    assert mx.array_equal(others["sum"], x + y)


def test_each_part_knows_which_it_is(cut):
    for count, parts in ((1, [0]), (3, [1, 2, 3])):
        cut(count)
        seen = []
        map_batch(lambda x, seen=seen: seen.append(streams.part()) or x, mx.zeros((8, 10)))
        assert sorted(seen) == parts


def test_gelu_is_the_same_in_every_part(cut):
    cut(4)
    x = mx.random.normal((8, 33)) * 3

    def slopes(x):
        return mx.grad(lambda x: map_batch(gelu, x).sum())(x)

    for whole, parts in (
        (gelu, lambda x: map_batch(gelu, x)),
        (mx.grad(lambda x: gelu(x).sum()), slopes),
    ):
        np.testing.assert_array_equal(whole(x), parts(x))
        np.testing.assert_array_equal(mx.compile(whole)(x), mx.compile(parts)(x))


@pytest.mark.slow
def test_compiled_steps_are_the_same_bit_for_bit_each_time(cut):
    cut(2)

    def run():
        model = chord_model()
        features = mx.random.normal((6, 32, 48), key=mx.random.key(1))
        optimizer = optim.SGD(learning_rate=1e-2)
        state = [model.state, optimizer.state, mx.random.state]

        def step(features):
            loss, found = gradients(model, features)
            optimizer.update(model, found)
            return loss

        step = mx.compile(step, inputs=state, outputs=state)
        mx.random.seed(3)
        return [float(step(features)) for _ in range(20)]

    first = run()
    assert first[-1] < first[0]
    for _ in range(5):
        assert run() == first


def test_clap_by_parts(cut):
    mx.random.seed(0)
    model = CLAP(CLAPConfig.small(vocab_size=50)).eval()
    audio = mx.random.normal((3, 1, 501, 64), key=mx.random.key(1))
    ids = mx.array([[0, 7, 2, 1], [0, 8, 9, 2], [0, 2, 1, 1]])
    cut(1)
    whole = model(audio, ids)
    cut(2)
    for name, value in model(audio, ids).items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_claps_gradients_by_parts(cut, compiled, twice):
    """Of short texts, whose rows are few beside the weights, and of blocks computed twice."""
    mx.random.seed(0)
    model = CLAP(CLAPConfig.small(vocab_size=50)).eval()
    if twice:
        checkpoint_layers(model.text_encoder.layers)
    audio = mx.random.normal((3, 1, 501, 64), key=mx.random.key(1))
    ids = mx.array([[0, 7, 2, 1], [0, 8, 9, 2], [0, 2, 1, 1]])

    def found():
        gradient = nn.value_and_grad(model, lambda *batch: model(*batch)["logits_per_text"].std())
        return dict(tree_flatten((mx.compile(gradient) if compiled else gradient)(audio, ids)[1]))

    cut(1)
    whole = found()
    cut(2)
    for name, value in found().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_weights_gradient_is_one_product_where_rows_are_few(cut, monkeypatch):
    made = []
    product = cpu_ops._weights_gradient
    monkeypatch.setattr(
        cpu_ops, "_weights_gradient", lambda known: made.append(len(known)) or product(known)
    )
    cut(3)
    bias = mx.zeros(30)

    def gradients(x, weight):
        def of(x, weight):
            out = map_batch(lambda part: linear(linear(part, weight, bias), weight, bias), x)
            return mx.square(out).sum()

        return mx.grad(of, (0, 1))(x, weight)

    weight = mx.random.normal((30, 30), key=mx.random.key(0))
    few, many = (mx.random.normal((n, 30), key=mx.random.key(n)) for n in (27, 30))
    found = gradients(few, weight)
    assert made == [6]  # used twice in three parts
    made.clear()
    gradients(many, weight)
    assert made == [1] * 6
    cut(1)
    for array, expected in zip(found, gradients(few, weight), strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-4)


def test_batch_norm_counts_the_whole_batch(cut):
    model = CLAP(CLAPConfig.small(vocab_size=50)).train()
    audio = 10 + 3 * mx.random.normal((4, 1, 1001, 64), key=mx.random.key(1))
    cut(2)
    mx.eval(model.audio_encoder(audio))
    norm = model.audio_encoder.batch_norm
    expected = norm.momentum * audio.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(norm.running_mean, expected, rtol=1e-4)


def test_small_batches_stay_whole(cut, monkeypatch):
    cut(2)
    monkeypatch.setattr(streams, "MIN_BATCH_SIZE", 801)
    sizes = []
    map_batch(lambda x: sizes.append(len(x)) or x, mx.zeros((8, 100)))
    map_batch(lambda x: sizes.append(len(x)) or x, mx.zeros((8, 101)))
    assert sizes == [8, 4, 4]


def test_even_numbers_of_examples_make_parts_of_one_size(cut):
    cut(3)
    for examples, even in ((1, 1), (2, 2), (3, 3), (4, 6), (8, 9)):
        assert streams.even_batch(examples) == even
        sizes = []
        map_batch(lambda x, sizes=sizes: sizes.append(len(x)) or x, mx.zeros((even, 1)))
        assert len(set(sizes)) == 1
    cut(1)
    assert streams.even_batch(8) == 8


def test_nothing_is_cut_unless_asked_for(cut, monkeypatch):
    cut(2)
    monkeypatch.delenv(streams.WIDTH)
    assert not streams.is_enabled()
    sizes = []
    map_batch(lambda x: sizes.append(len(x)) or x, mx.zeros((8, 100)))
    assert sizes == [8]
    streams.use_all_cores()
    assert streams.is_enabled()
    monkeypatch.setenv(streams.WIDTH, "20")  # as the user says
    streams.use_all_cores()
    assert not streams.is_enabled()


def test_there_are_up_to_four_streams(monkeypatch):
    monkeypatch.setattr(streams, "_count", None)
    for cores, expected in ((1, 1), (3, 3), (16, 4)):
        monkeypatch.setattr(streams.blas, "cores", lambda cores=cores: cores)
        assert streams.stream_count() == expected


@pytest.mark.parametrize("why", ["GPU", "one core", "one stream"])
def test_mlx_queues_as_ever_where_nothing_can_be_split(monkeypatch, why):
    monkeypatch.delenv(streams.WIDTH)
    monkeypatch.setattr(streams, "_count", None)
    if why == "GPU":
        monkeypatch.setattr(streams.mx, "default_device", lambda: mx.Device(mx.gpu))
    elif why == "one core":
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
    streams.use_all_cores(1 if why == "one stream" else None)
    assert streams.WIDTH not in os.environ


def test_a_process_of_one_thread_has_one_stream():
    code = (
        "import audiotrain.backend.streams as p;"
        "print(len(p.streams()), p.blas.cores(), p.is_enabled())"
    )
    assert of_process(code, OMP_NUM_THREADS="1") == ["1", "1", "False"]


@pytest.mark.parametrize("call", ["configure('full', streams=3)", "configure(streams=3)"])
def test_as_many_streams_as_asked_for(call):
    code = (
        "from audiotrain import backend; import audiotrain.backend.streams as p;"
        f"backend.{call}; print(len(p.streams()), p.is_enabled())"
    )
    assert of_process(code) == ["3", "True"]


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        ("chords", True),
        ("chords evaluate", True),
        ("clap", True),
        ("clap evaluate", True),
        ("clap --checkpoint-blocks", False),  # to save memory
        ("classify", False),
    ],
)
def test_recipes_that_ask_for_it(tmp_path, monkeypatch, words, asks):
    recipe, *words = words.split()
    words += ["--data", str(tmp_path / "nowhere")]
    monkeypatch.delenv("AUDIOTRAIN_CPU", raising=False)
    monkeypatch.setattr(streams, "_count", None)

    def width_after_main():
        assert RECIPES[recipe].main(words) == 2
        return os.environ.get(streams.WIDTH)

    monkeypatch.delenv(streams.WIDTH)
    assert width_after_main() == (str(streams.WIDE) if asks and blas.cores() > 1 else None)
    monkeypatch.setenv(streams.WIDTH, "30")
    assert width_after_main() == "30"


def of_process(code, **variables):
    """What a new Python prints, in words."""
    unset = ("AUDIOTRAIN_CPU", streams.WIDTH)
    environment = {k: v for k, v in os.environ.items() if k not in unset} | variables
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()
