"""Cross-validation: folds by group and label, predictions of each row by a model that never saw it.

A fold is the array of row numbers that it is tested on; all other rows are there to train on.
"""

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from audiotrain.utils.files import write, write_json


def make_folds(
    groups: Sequence[str], folds: int, labels: Sequence | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Rows (ascending) that each fold is tested on: all rows once, a group never in two folds.

    Folds are about equally large; with `labels`, one a row, each has about the same share of each
    label (scikit-learn's StratifiedGroupKFold). ValueError, one line, for fewer groups than folds.

    >>> [rows.tolist() for rows in make_folds(["a", "a", "a", "b", "c"], 2)]
    [[0, 1, 2], [3, 4]]
    """
    groups = [str(group) for group in groups]
    if folds < 2:
        raise ValueError(f"folds={folds}, expected 2 or more")
    if len(set(groups)) < folds:
        raise ValueError(
            f"folds={folds}, but {len(groups)} items are of {len(set(groups))} groups: expected "
            "as many groups as folds or more"
        )
    if labels is None:
        return _even(groups, folds, seed)
    if len(labels) != len(groups):
        raise ValueError(f"{len(labels)} labels for {len(groups)} rows, expected one a row")
    return _stratified(groups, folds, [str(label) for label in labels], seed)


def _even(groups: Sequence[str], folds: int, seed: int) -> list[np.ndarray]:
    """The largest group first, each to the smallest fold, equals in a hashed order."""
    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = sorted(range(len(names)), key=lambda n: (-sizes[n], _hash(seed, str(names[n]))))
    fold, filled = np.empty(len(names), np.int64), np.zeros(folds, np.int64)
    for number in order:
        fold[number] = filled.argmin()
        filled[fold[number]] += sizes[number]
    return [np.flatnonzero(fold[member] == k) for k in range(folds)]


def _stratified(
    groups: Sequence[str], folds: int, labels: Sequence[str], seed: int
) -> list[np.ndarray]:
    from sklearn.model_selection import StratifiedGroupKFold

    names, counts = np.unique(labels, return_counts=True)
    if counts.max() < folds:
        raise ValueError(
            f"folds={folds}, but the commonest of {len(names)} labels, {names[counts.argmax()]}, "
            f"has {counts.max()} items: expected as many as folds, or folds without labels"
        )
    # Labels too rare for every fold count as one, or as the commonest: `missing_labels` tells them.
    rare = set(names[counts < folds].tolist())
    stands_for = "" if counts[counts < folds].sum() >= folds else str(names[counts.argmax()])
    kinds = [stands_for if label in rare else label for label in labels]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [np.sort(rows) for _, rows in splitter.split(kinds, kinds, groups)]


def _hash(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "replace"), digest_size=8).digest()


def missing_labels(folds: Sequence[np.ndarray], labels: Sequence) -> list[str]:
    """A line for each fold that has none of a label to test on, or none to train on."""
    labels = np.array([str(label) for label in labels])
    lines = []
    for number, rows in enumerate(folds):
        trained = set(np.delete(labels, rows).tolist())
        tested = set(labels[rows].tolist())
        for absent, purpose in ((tested - trained, "train"), (trained - tested, "test")):
            if absent:
                shown = ", ".join(sorted(absent)[:5])
                lines.append(f"fold {number}: none to {purpose} on of {len(absent)} ({shown})")
    return lines


class OutOfFold:
    """Predictions for every row, each by the model of the fold that did not train on it.

    In `folder`: folds.json says which ids each fold is tested on, oof/fold-K.npz holds arrays by
    name, rows in the fold's order. Each file appears whole or not at all, so that `done` tells an
    interrupted cross-validation where to go on. ValueError, one line, when `folder` holds the
    folds of other data.
    """

    def __init__(self, folder: str | Path, ids: Sequence[str], folds: Sequence[np.ndarray]):
        self.folder, self.ids = Path(folder), [str(one) for one in ids]
        self.folds = [np.asarray(rows) for rows in folds]
        joined = np.sort(np.concatenate(self.folds))
        if not np.array_equal(joined, np.arange(len(self.ids))):
            raise ValueError(
                f"{len(joined)} rows in {len(folds)} folds, expected each of {len(self.ids)} once"
            )
        if len(set(self.ids)) < len(self.ids):
            twice = next(one for one in self.ids if self.ids.count(one) > 1)
            raise ValueError(f"{self.folder}: id {twice!r} occurs twice, expected one row each")
        keep_folds(self.folder, [[self.ids[row] for row in rows] for rows in self.folds])

    def file(self, k: int) -> Path:
        """Where a fold's predictions are kept."""
        return fold_file(self.folder, k)

    def done(self, k: int) -> bool:
        """Whether a fold's predictions are saved."""
        return self.file(k).is_file()

    def save(self, k: int, predictions: Mapping[str, np.ndarray]) -> None:
        """Keep a fold's predictions: arrays (rows of the fold, ...) by name."""
        for name, values in predictions.items():
            if len(values) != len(self.folds[k]):
                raise ValueError(
                    f"fold {k}: {len(values)} rows of {name}, expected {len(self.folds[k])}"
                )
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: np.asarray(v) for name, v in predictions.items()})
        write(self.file(k), buffer.getvalue())

    def load(self) -> dict[str, np.ndarray]:
        """Arrays (items, ...) by name, rows in the order of `ids`. ValueError when a fold is
        missing or its file is damaged."""
        missing = [k for k in range(len(self.folds)) if not self.done(k)]
        if missing:
            raise ValueError(
                f"{self.folder}: no predictions yet of fold {', '.join(map(str, missing))}, "
                f"expected all {len(self.folds)} folds"
            )
        parts = [self._read(k) for k in range(len(self.folds))]
        if any(set(part) != set(parts[0]) for part in parts):
            raise ValueError(f"{self.folder}: folds do not have the same arrays")
        back = np.argsort(np.concatenate(self.folds))
        return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}

    def _read(self, k: int) -> dict[str, np.ndarray]:
        try:
            with np.load(io.BytesIO(self.file(k).read_bytes()), allow_pickle=False) as arrays:
                found = dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{self.file(k)}: damaged ({error}); delete it to do it anew"
            ) from None
        for name, values in found.items():
            if len(values) != len(self.folds[k]):
                raise ValueError(
                    f"{self.file(k)}: {len(values)} rows of {name}, expected {len(self.folds[k])}"
                )
        return found


def fold_file(folder: str | Path, k: int) -> Path:
    """Where a cross-validation's folder keeps the predictions of a fold."""
    return Path(folder) / "oof" / f"fold-{k}.npz"


def read_out_of_fold(folder: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The ids of a finished cross-validation, fold by fold, and what was predicted of them: arrays
    (items, ...) by name. ValueError when a fold is missing or damaged."""
    names = read_folds(folder)
    ids = [name for fold in names for name in fold]
    rows = np.split(np.arange(len(ids)), np.cumsum([len(fold) for fold in names])[:-1])
    return ids, OutOfFold(folder, ids, rows).load()


def keep_folds(folder: str | Path, folds: Sequence[Sequence[str]]) -> None:
    """Write the ids that each fold is tested on to folds.json, or see that it says the same.

    ValueError, one line, when it has other folds.
    """
    file, folds = Path(folder) / "folds.json", [list(names) for names in folds]
    if not file.exists():
        write_json(file, {"folds": folds})
        return
    saved = read_folds(folder)
    if saved == folds:
        return
    old, new = ({name: k for k, ids in enumerate(all_) for name in ids} for all_ in (saved, folds))
    other = sorted(name for name in old | new if old.get(name) != new.get(name))
    example = f"such as {other[0]}" if other else "in another order"
    raise ValueError(
        f"{file}: folds of other data: {len(saved)} folds of {len(old)} items, expected "
        f"{len(folds)} of {len(new)}; {len(other)} differ, {example}; another folder starts anew"
    )


def read_folds(folder: str | Path) -> list[list[str]]:
    """The ids that each fold of a cross-validation's folder is tested on."""
    file = Path(folder) / "folds.json"
    try:
        folds = json.loads(file.read_text("utf-8"))["folds"]
        return [[str(name) for name in names] for names in folds]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not the folds of a cross-validation ({error})") from None


def summarize(rows: Sequence[Mapping[str, float]]) -> dict:
    """{"mean", "deviation", "folds"}: of each score over the folds that have a finite one, and the
    rows themselves. The deviation divides by one less than there are, and is NaN for one.

    >>> summarize([{"accuracy": 0.5}, {"accuracy": 0.7}])["mean"]
    {'accuracy': 0.6}
    """
    result: dict = {"mean": {}, "deviation": {}, "folds": [dict(row) for row in rows]}
    for name in dict.fromkeys(name for row in rows for name in row):
        found = [row[name] for row in rows if name in row and row[name] is not None]
        values = np.array([value for value in found if math.isfinite(value)], np.float64)
        result["mean"][name] = float(values.mean()) if len(values) else math.nan
        result["deviation"][name] = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return result


def summary_table(summary: Mapping) -> str:
    """`summarize` as text: a line a score, its mean ± deviation, then the folds.

    >>> print(summary_table(summarize([{"accuracy": 0.5}, {"accuracy": 0.7}])))
    score              mean ± deviation    fold 0  fold 1
    accuracy          0.600 ± 0.141         0.500   0.700
    """
    folds = summary["folds"]
    head = f"{'score':16}{'mean':>7} ± {'deviation':9}  "
    lines = [head + "".join(f"{f'fold {k}':>8}" for k in range(len(folds)))]
    for name, mean in summary["mean"].items():
        row = f"{name:16}{mean:7.3f} ± {summary['deviation'][name]:<9.3f}  "
        lines.append(row + "".join(_cell(fold.get(name)) for fold in folds))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{math.nan if value is None else value:8.3f}"
