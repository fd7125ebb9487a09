"""Contrastive losses against torch and closed forms; ranks are played by slices of a batch."""

import math

import mlx.core as mx
import numpy as np
import pytest

from audiotrain.train.losses import ContrastiveLoss, SigLIPLoss, bounded_exp

PAIRS, WIDTH = 8, 5
GROUPS = {
    "none": None,
    "captions": np.array([0, 1, 0, 2, 3, 1, 0, 4]),
    "tokens": np.array([[0, 7], [0, 8], [0, 7], [1, 7], [2, 2], [3, 3], [0, 7], [1, 8]]),
}


def embeddings(seed=0, pairs=PAIRS):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(pairs, WIDTH)).astype(np.float32) for _ in "at"]


def matches(groups, pairs=PAIRS):
    """Which pairs match, by a loop."""
    if groups is None:
        return np.eye(pairs)
    return np.array([[float(np.array_equal(a, b)) for b in groups] for a in groups])


def torch_infonce(audio, text, scales, groups):
    torch = pytest.importorskip("torch")
    cosines = torch.nn.functional.normalize(audio) @ torch.nn.functional.normalize(text).T
    targets = torch.tensor(matches(groups))
    targets = targets / targets.sum(1, keepdim=True)
    entropy = torch.nn.functional.cross_entropy
    return (entropy(scales[0] * cosines, targets) + entropy(scales[1] * cosines.T, targets)) / 2


def torch_siglip(audio, text, scale_and_bias, groups):
    torch = pytest.importorskip("torch")
    cosines = torch.nn.functional.normalize(audio) @ torch.nn.functional.normalize(text).T
    signs = torch.tensor(2 * matches(groups) - 1)
    logits = scale_and_bias[0] * cosines + scale_and_bias[1]
    return -torch.nn.functional.logsigmoid(signs * logits).sum() / len(audio)


def infonce(audio, text, scales, groups):
    return ContrastiveLoss()(audio, text, (scales[0], scales[1]), groups)


def siglip(audio, text, scale_and_bias, groups):
    return SigLIPLoss()(audio, text, scale_and_bias[0], scale_and_bias[1], groups)


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize(
    ("ours", "theirs", "scalars"),
    [(infonce, torch_infonce, [9.0, 4.0]), (siglip, torch_siglip, [7.0, -2.0])],
)
def test_losses_and_their_gradients_are_torchs(ours, theirs, scalars, groups):
    torch = pytest.importorskip("torch")
    groups, arrays = GROUPS[groups], [*embeddings(), np.array(scalars, np.float32)]
    given = None if groups is None else mx.array(groups)
    tensors = [torch.tensor(array.astype(np.float64), requires_grad=True) for array in arrays]
    expected = theirs(*tensors, groups)
    expected.backward()
    loss, gradients = mx.value_and_grad(lambda *x: ours(*x, given)[0], argnums=(0, 1, 2))(
        *map(mx.array, arrays)
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(np.array(gradient), tensor.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize("groups", GROUPS)
def test_accuracies_are_shares_whose_nearest_matches(groups):
    audio, text = embeddings()
    text = 0.3 * text + audio
    text[3], audio[4] = audio[1], text[0]  # some are wrong
    groups = GROUPS[groups]
    cosines = (audio @ text.T) / np.outer(*(np.linalg.norm(x, axis=1) for x in (audio, text)))
    rows, right = np.arange(PAIRS), matches(groups)
    expected = {
        "audio_acc": right[rows, cosines.argmax(1)].mean(),
        "text_acc": right[rows, cosines.argmax(0)].mean(),
    }
    assert 0 < min(expected.values()) <= max(expected.values()) < 1
    given = None if groups is None else mx.array(groups)
    for _, metrics in (
        ContrastiveLoss()(mx.array(audio), mx.array(text), mx.array(3.0), given),
        SigLIPLoss()(mx.array(audio), mx.array(text), mx.array(3.0), mx.array(-1.0), given),
    ):
        assert {name: value.item() for name, value in metrics.items()} == pytest.approx(expected)


def test_closed_forms():
    same = mx.ones((6, 3))
    assert ContrastiveLoss()(same, same, mx.array(50.0))[0].item() == pytest.approx(math.log(6))
    # Scale 0: each comparison is a coin's.
    loss, _ = SigLIPLoss()(same, same, mx.array(0.0), mx.array(0.0))
    assert loss.item() == pytest.approx(6 * math.log(2))
    apart = mx.eye(6)
    assert ContrastiveLoss()(apart, apart, mx.array(1e3))[0].item() == 0
    # Equal captions that all match: the least loss is their entropy, not 0.
    loss, metrics = ContrastiveLoss()(same, same, mx.array(9.0), mx.zeros((6,), mx.int32))
    assert loss.item() == pytest.approx(math.log(6))
    assert metrics["audio_acc"].item() == 1


def test_half_precision_and_lengths_do_not_matter():
    audio, text = map(mx.array, embeddings())
    plain = ContrastiveLoss()(audio, text, mx.array(10.0))[0].item()
    longer = ContrastiveLoss()(7 * audio, 0.1 * text, mx.array(10.0))[0].item()
    assert longer == pytest.approx(plain, rel=1e-5)
    loss, _ = ContrastiveLoss()(audio.astype(mx.bfloat16), text, mx.array(10.0, mx.bfloat16))
    assert loss.dtype == mx.float32
    assert loss.item() == pytest.approx(plain, rel=0.05)
    zero = ContrastiveLoss()(mx.zeros((2, 3)), mx.zeros((2, 3)), mx.array(10.0))[0]
    assert zero.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", [ContrastiveLoss, SigLIPLoss])
def test_ranks_that_gather_train_as_one_process(kind, grouped):
    """The mean over ranks of gradients is that of one process, logit scale and bias included."""
    arrays = [*map(mx.array, embeddings()), mx.array([6.0, -1.0])]
    groups = mx.array(GROUPS["captions"]) if grouped else None

    def loss(gather, own, audio, text, scalars):
        given = (scalars[0], scalars[1]) if kind is SigLIPLoss else (scalars[0],)
        return kind(gather)(audio[own], text[own], *given, None if groups is None else groups[own])

    def of_rank(rank, audio, text, scalars):
        own = slice(4 * rank, 4 * rank + 4)
        wholes = iter([audio, text, groups])

        def gather(rows):
            others = mx.stop_gradient(next(wholes))
            return mx.concatenate([others[: own.start], _scaled(rows, 2), others[own.stop :]])

        return loss(gather, own, audio, text, scalars)[0]

    def gradients(function):
        return mx.value_and_grad(function, argnums=(0, 1, 2))(*arrays)

    value, expected = gradients(lambda *x: loss(None, slice(None), *x)[0])
    ranks = [gradients(lambda *x, rank=rank: of_rank(rank, *x)) for rank in range(2)]
    for found, _ in ranks:
        assert found.item() == pytest.approx(value.item(), rel=1e-6)
    for place, gradient in enumerate(expected):
        mean = (ranks[0][1][place] + ranks[1][1][place]) / 2
        np.testing.assert_allclose(np.array(mean), np.array(gradient), atol=1e-6)


def _scaled(rows, factor):
    """The rows, their gradient times `factor`."""
    if not mx.issubdtype(rows.dtype, mx.floating):
        return rows
    return factor * rows - mx.stop_gradient((factor - 1) * rows)


def test_the_bounded_scale_comes_back_from_its_bound():
    bound = math.log(100)
    for log_scale in (0.0, bound - 0.1, bound, bound + 1):
        for direction in (1.0, -1.0):
            value, gradient = mx.value_and_grad(lambda x, d=direction: d * bounded_exp(x))(
                mx.array(log_scale)
            )
            expected = min(math.exp(log_scale), 100)
            assert value.item() == pytest.approx(direction * expected, rel=1e-5)
            # A falling loss (-1) would raise the scale beyond its bound.
            held = direction < 0 and log_scale >= bound
            assert gradient.item() == pytest.approx(0 if held else direction * expected, rel=1e-5)


@pytest.mark.parametrize(
    ("audio", "text", "groups", "message"),
    [
        ((4, 3), (5, 3), None, r"audio \(4, 3\) and text \(5, 3\), expected two of the same"),
        ((4, 3, 1), (4, 3, 1), None, r"expected two of the same \(pairs, width\)"),
        ((4, 3), (4, 3), (3,), r"groups \(3,\), expected a row for each of 4"),
    ],
)
def test_what_does_not_fit_is_refused(audio, text, groups, message):
    given = None if groups is None else mx.zeros(groups, mx.int32)
    with pytest.raises(ValueError, match=message):
        ContrastiveLoss()(mx.zeros(audio), mx.zeros(text), mx.array(1.0), given)


def blended_matches(groups, seconds, share):
    """How much of each audio is what each text says, by loops."""
    return np.array(
        [
            [part * (own == text) + (1 - part) * (second == text) for text in groups]
            for own, second, part in zip(groups, seconds, share, strict=True)
        ]
    )


def test_blended_audio_matches_both_captions_by_their_shares():
    audio, text = embeddings()
    groups, seconds = np.array([0, 1, 2, 3, 0, 5, 6, 7]), np.array([0, 4, 0, 1, 2, 9, 6, 0])
    share = np.array([1.0, 0.5, 0.75, 0.3, 0.6, 0.4, 0.2, 0.9])
    shares = blended_matches(groups, seconds, share)
    assert shares[5].sum() == pytest.approx(0.4), "the other caption may be in no pair"
    blended = mx.array(seconds), mx.array(share.astype(np.float32))

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def entropy(logits, targets):
        targets = targets / targets.sum(1, keepdims=True)
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -(targets * logs).sum(1).mean()

    cosines = unit(audio) @ unit(text).T
    expected = (entropy(9 * cosines, shares) + entropy(4 * cosines.T, shares.T)) / 2
    given = mx.array(audio), mx.array(text)
    scales = mx.array(9.0), mx.array(4.0)
    loss, _ = ContrastiveLoss()(*given, scales, mx.array(groups), blended)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    logits = 7 * cosines - 2
    sigmoid = 1 / (1 + np.exp(-logits))
    expected = -(shares * np.log(sigmoid) + (1 - shares) * np.log(1 - sigmoid)).sum() / PAIRS
    loss, _ = SigLIPLoss()(*given, mx.array(7.0), mx.array(-2.0), mx.array(groups), blended)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    whole = mx.array(groups), mx.ones(PAIRS)
    losses = [ContrastiveLoss()(*given, scales, mx.array(groups), b)[0] for b in (None, whole)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    with pytest.raises(ValueError, match="blended pairs without groups"):
        ContrastiveLoss()(*given, scales, None, blended)
