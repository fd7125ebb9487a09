"""Zero-shot against a loop, the linear probe against scikit-learn."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from audiotrain.evaluation import classification
from audiotrain.evaluation.classification import class_accuracies
from audiotrain.evaluation.linear_probe import fit_linear_probe, zero_shot


def clouds(seed, classes=5, width=8, items=120, noise=1.0):
    rng = np.random.default_rng(seed)
    centers = np.random.default_rng(0).normal(size=(classes, width))
    targets = rng.choice(
        classes, items, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2)
    )
    return centers[targets] + noise * rng.normal(size=(items, width)), targets, centers


def test_zero_shot_averages_the_directions_of_its_templates():
    audio, targets, centers = clouds(1)
    rng = np.random.default_rng(2)
    prompts = [
        center + rng.normal(size=(count, 8)) * 10 ** rng.uniform(-1, 1, (count, 1))
        for count, center in enumerate(centers, 1)
    ]
    found = zero_shot(audio, prompts)
    assert found.shape == (120, 5)
    for clip in range(0, 120, 7):
        for number, templates in enumerate(prompts):
            mean = np.mean([one / np.sqrt(one @ one) for one in templates], axis=0)
            cosine = audio[clip] @ mean / np.sqrt((audio[clip] @ audio[clip]) * (mean @ mean))
            assert found[clip, number] == pytest.approx(cosine)
    scores, predictions = class_accuracies(found, targets), found.argmax(axis=1)
    assert scores["accuracy"] == pytest.approx(np.mean(predictions == targets))
    assert scores["accuracy"] == classification.top_k_accuracy(found, targets, 1)
    expected = balanced_accuracy_score(targets, predictions)
    assert scores["balanced_accuracy"] == pytest.approx(expected)
    assert 0.2 < expected < 1
    assert expected != scores["accuracy"]
    confusion = classification.confusion_matrix(predictions, targets, 5)
    assert np.array_equal(confusion, confusion_matrix(targets, predictions, labels=range(5)))
    assert classification.per_class(confusion)["recall"].mean() == pytest.approx(expected)


def test_equal_scores_are_not_right():
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [3.0, 3.0, 3.0]])
    assert class_accuracies(scores, [0, 1, 0])["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("C", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_probe_minimises_its_objective(C, classes):
    """The gradient of C * sum of cross entropies + |weights|^2 / 2, which is convex, is zero."""
    train, targets, _ = clouds(1, classes)
    test, truth, _ = clouds(2, classes)
    probe = fit_linear_probe(train, targets, C)
    errors = scipy.special.softmax(probe(train), axis=1) - np.eye(classes)[targets]
    np.testing.assert_allclose(C * errors.sum(axis=0), 0, atol=1e-3 * max(C, 1))
    np.testing.assert_allclose(C * train.T @ errors + probe.weights, 0, atol=2e-3 * max(C, 1))
    found = class_accuracies(probe(test), truth)["accuracy"]
    assert 0.4 < found < 1


def test_the_probe_is_scikit_learns():
    train, targets, _ = clouds(1)
    test, truth, _ = clouds(2)
    probe = fit_linear_probe(train, targets, 1.0)
    reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(train, targets)
    np.testing.assert_allclose(probe.weights.T, reference.coef_, atol=2e-3)
    found = class_accuracies(probe(test), truth)["accuracy"]
    assert found == pytest.approx(reference.score(test, truth))


def test_a_probe_that_does_not_converge_says_so():
    embeddings, targets, _ = clouds(1)
    with pytest.warns(UserWarning, match="has not converged after 2 iterations: scale"):
        fit_linear_probe(embeddings, targets, max_iterations=2)


def test_a_search_that_gains_nothing_more_has_converged(monkeypatch):
    """L-BFGS says that it failed where float64 ends before its tolerance, as with a small C."""
    minimize = scipy.optimize.minimize

    def at_the_end_of_float64(*args, **options):
        found = minimize(*args, **options)
        found.status = 2
        return found

    monkeypatch.setattr(scipy.optimize, "minimize", at_the_end_of_float64)
    embeddings, targets, _ = clouds(1)
    fit_linear_probe(embeddings, targets, 1e-4)  # warnings are errors here


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: zero_shot(x, [x, x[:0]]), r"class 1 are \(0, 3\), expected \(templates, 3\)"),
        (lambda x: zero_shot(x, [x, x[:, :2]]), r"class 1 are \(4, 2\), expected \(templates, 3\)"),
        (lambda x: class_accuracies(x, [0, 1]), "4 scores, 2 targets: expected as many"),
        (lambda x: fit_linear_probe(x, [0, 0, 2, 2]), r"each class are \[2, 0, 2\], expected"),
        (lambda x: fit_linear_probe(x, [0, 0, 0, 0]), r"each class are \[4\], expected two"),
        (lambda x: fit_linear_probe(x, [0, 1]), r"\(4, 3\) and targets \(2,\), expected"),
        (lambda x: fit_linear_probe(x, [0, 1, 0, 1], C=0), "C is 0, expected above 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((4, 3)))
