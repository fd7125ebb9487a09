"""Cross-validation: folds by group and label, and out-of-fold predictions.

A fold is the array of the row numbers that it is tested on; the model of the fold trains on the
other rows.

FOLDER/folds.json      ids that each fold is tested on
FOLDER/fold-K/         the run of fold K, where a fold is a run
FOLDER/oof/            predictions for each row by the model that did not train on it
FOLDER/metrics.json    mean and deviation of each score over the folds, and the scores of each fold
"""

import hashlib
import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from audiotrain.config import conform
from audiotrain.train.distributed import ranks as distributed
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import parse_json, read_json_object, write, write_json


def make_folds(
    groups: Sequence[str], folds: int, labels: Sequence | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Rows (ascending) that each fold is tested on: all rows once, a group never in two folds.

    Folds are about equally large; with `labels`, one a row, each has about the same share of each
    label (scikit-learn's StratifiedGroupKFold). ValueError, one line, for fewer groups than folds,
    fewer than 2 folds, and labels that are not one a row, or none of which has as many items as
    there are folds.

    >>> [rows.tolist() for rows in make_folds(["a", "a", "a", "b", "c"], 2)]
    [[0, 1, 2], [3, 4]]
    """
    groups = [str(group) for group in groups]
    refuse_too_many_folds(groups, folds)
    if labels is None:
        return _even(groups, folds, seed)
    if len(labels) != len(groups):
        raise UserError(f"{len(labels)} labels for {len(groups)} rows, expected one a row")
    return _stratified(groups, folds, [str(label) for label in labels], seed)


def refuse_too_many_folds(groups: Sequence[str], folds: int) -> None:
    """ValueError when there are fewer groups of items than folds, or fewer than two folds."""
    if folds < 2:
        raise UserError(f"folds={folds}, expected 2 or more")
    if len(set(groups)) < folds:
        raise UserError(
            f"folds={folds}, but {len(groups)} items are of {len(set(groups))} groups: expected "
            "as many groups as folds or more"
        )


def _even(groups: Sequence[str], folds: int, seed: int) -> list[np.ndarray]:
    """The largest group first, each to the smallest fold, equal sizes in a hashed order."""

    def hashed(name: str) -> bytes:
        text = f"{seed}/{name}".encode("utf-8", "replace")
        return hashlib.blake2b(text, digest_size=8).digest()

    names, member, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = sorted(range(len(names)), key=lambda n: (-sizes[n], hashed(str(names[n]))))
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
        raise UserError(
            f"folds={folds}, but the commonest of {len(names)} labels, {names[counts.argmax()]}, "
            f"has {counts.max()} items: expected as many as folds, or folds without labels"
        )
    # Labels too rare for every fold count as one, or as the commonest; `missing_labels` names them.
    rare = counts < folds
    replacement = "" if counts[rare].sum() >= folds else str(names[counts.argmax()])
    kinds = [replacement if label in names[rare] else label for label in labels]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return [np.sort(rows) for _, rows in splitter.split(kinds, kinds, groups)]


def missing_labels(folds: Sequence[np.ndarray], labels: Sequence) -> list[str]:
    """A line for each fold that has none of a label to test on, or none to train on."""
    names = np.array([str(label) for label in labels])
    lines = []
    for number, rows in enumerate(folds):
        trained = set(np.delete(names, rows).tolist())
        tested = set(names[rows].tolist())
        for absent, purpose in ((tested - trained, "train"), (trained - tested, "test")):
            if absent:
                shown = ", ".join(sorted(absent)[:5])
                lines.append(f"fold {number}: none to {purpose} on of {len(absent)} ({shown})")
    return lines


# Of an .npz or .json.
DAMAGED = (
    *(OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error),
    *(RuntimeError, MemoryError),  # a compression or a size that no file of ours has
)


class FoldItem(Protocol):
    """An item that `folds_of` can assign to a fold."""

    @property
    def id(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def columns(self) -> Mapping[str, str]: ...


def folds_of(
    items: Sequence[FoldItem],
    folds: int,
    column: str | None = None,
    labels: Sequence | None = None,
    seed: int = 0,
) -> list[np.ndarray]:
    """Rows that each fold is tested on: a fold for each value of the items' `column`, in order of
    the values ("2" before "10"), or without a column `make_folds` by the items' groups.

    ValueError when an item has no value in `column`, or all have the same.
    """
    if column is None:
        return make_folds([item.group or item.id for item in items], folds, labels, seed)
    without = [item for item in items if not item.columns.get(column)]
    if without:
        columns = ", ".join(sorted({name for item in items for name in item.columns})) or "none"
        raise UserError(
            f"fold column {column}: {len(without)} of {len(items)} items have none, such as "
            f"{without[0].id}; columns are {columns}"
        )
    values = np.array([item.columns[column] for item in items])
    names = sorted(set(values.tolist()), key=lambda name: (len(name), name))
    if len(names) < 2:
        raise UserError(f"fold column {column}: {names[0]} everywhere, expected two folds or more")
    return [np.flatnonzero(values == name) for name in names]


class _FoldStore:
    """The ids and folds of a cross-validation, and the folder that keeps predictions."""

    def __init__(self, folder: str | Path, ids: Sequence[str], folds: Sequence[np.ndarray]):
        self.folder, self.ids = Path(folder), [str(one) for one in ids]
        self.folds = [np.asarray(rows) for rows in folds]
        joined = np.sort(np.concatenate(self.folds))
        if not np.array_equal(joined, np.arange(len(self.ids))):
            raise UserError(
                f"{len(joined)} rows in {len(folds)} folds, expected each of {len(self.ids)} once"
            )
        if len(set(self.ids)) < len(self.ids):
            twice = next(one for one in self.ids if self.ids.count(one) > 1)
            raise UserError(f"{self.folder}: id {twice!r} occurs twice, expected one row each")
        _keep_folds(self.folder, [self.fold_ids(k) for k in range(len(self.folds))])

    def fold_ids(self, k: int) -> list[str]:
        """The ids that fold `k` is tested on."""
        return [self.ids[row] for row in self.folds[k]]

    def file(self, k: int) -> Path:
        """The file that exists once fold `k` is done."""
        raise NotImplementedError

    def done(self, k: int) -> bool:
        """Whether all predictions of fold `k` are saved."""
        return self.file(k).is_file()


Store = TypeVar("Store", bound=_FoldStore)


class OutOfFold(_FoldStore):
    """Predictions for every row, each by the model of the fold that did not train on it.

    In `folder`: folds.json has the ids that each fold is tested on, oof/fold-K.npz holds arrays by
    name, rows in the fold's order. Each file is written whole, so an interrupted cross-validation
    continues with the first fold that is not `done`. ValueError, one line, when `folder` holds the
    folds of other data.
    """

    def file(self, k: int) -> Path:
        """The predictions of fold `k`."""
        return self.folder / "oof" / f"fold-{k}.npz"

    def save(self, k: int, predictions: Mapping[str, np.ndarray]) -> None:
        """Keep a fold's predictions: arrays (rows of the fold, ...) by name."""
        self._check_rows(k, predictions, f"fold {k}")
        _write_npz(self.file(k), predictions)

    def load(self) -> dict[str, np.ndarray]:
        """Arrays (items, ...) by name, rows in the order of `ids`. ValueError when a fold is
        missing or its file is damaged."""
        missing = [str(k) for k in range(len(self.folds)) if not self.done(k)]
        if missing:
            raise UserError(
                f"{self.folder}: no predictions yet of fold {', '.join(missing)}, expected all "
                f"{len(self.folds)} folds"
            )
        parts = [self.load_fold(k) for k in range(len(self.folds))]
        if any(set(part) != set(parts[0]) for part in parts):
            raise UserError(f"{self.folder}: folds do not have the same arrays")
        back = np.argsort(np.concatenate(self.folds))
        return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}

    def load_fold(self, k: int) -> dict[str, np.ndarray]:
        """Arrays (rows of the fold, ...) by name. ValueError when the file is damaged."""
        try:
            arrays = _read_npz(self.file(k))
        except DAMAGED as error:
            raise UserError(f"{self.file(k)}: damaged ({error}); delete it to redo it") from None
        self._check_rows(k, arrays, str(self.file(k)))
        return arrays

    def _check_rows(self, k: int, arrays: Mapping[str, np.ndarray], place: str) -> None:
        rows = len(self.folds[k])
        for name, values in arrays.items():
            if len(values) != rows:
                raise UserError(f"{place}: {len(values)} rows of {name}, expected {rows}")


class RaggedOutOfFold(_FoldStore):
    """Predictions whose length differs by item, such as frames of songs: a file for each item.

    In `folder`: folds.json as with OutOfFold, oof/K-N.npz with the arrays of an item of fold K,
    oof/K.json with the file of each id, written once the fold is done.
    """

    def __init__(self, folder: str | Path, ids: Sequence[str], folds: Sequence[np.ndarray]):
        super().__init__(folder, ids, folds)
        self._files: list[dict[str, str]] = [{} for _ in self.folds]  # by id

    def file(self, k: int) -> Path:
        """The index of a fold's files."""
        return self.folder / "oof" / f"{k}.json"

    def save(self, k: int, item_id: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep the arrays of one item of fold `k`."""
        file = f"{k}-{len(self._files[k]):05d}.npz"
        _write_npz(self.file(k).parent / file, arrays)
        self._files[k][item_id] = file

    def finish(self, k: int) -> None:
        """Write the index of fold `k`, which is done then. ValueError when an item is missing."""
        missing = [name for name in self.fold_ids(k) if name not in self._files[k]]
        if missing:
            raise UserError(f"fold {k}: no predictions of {len(missing)} items, {missing[0]}")
        write_json(self.file(k), self._files[k])


def read_ragged(folder: str | Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(id, arrays by name) of each item of a finished RaggedOutOfFold, fold by fold. ValueError
    when a fold is missing or a file is damaged."""
    for k, names in enumerate(read_folds(folder)):
        index = Path(folder) / "oof" / f"{k}.json"
        if not index.is_file():
            raise UserError(f"{folder}: fold {k} is not done; cv --output {folder} --resume")
        try:
            files = dict(parse_json(index.read_text("utf-8")))
        except DAMAGED as error:
            raise UserError(f"{index}: not the files of a fold ({error})") from None
        for name in names:
            try:
                yield name, _read_npz(index.parent / files[name])
            except (KeyError, *DAMAGED) as error:
                raise UserError(f"{index}: {name}: no predictions ({error})") from None


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    # From memory: NumPy leaves a damaged file open.
    with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
        return dict(arrays)


def _write_npz(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    named = {name: np.asarray(values) for name, values in arrays.items()}
    np.savez_compressed(buffer, allow_pickle=False, **named)
    write(file, buffer.getvalue())


def read_out_of_fold(folder: str | Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """The ids of a finished cross-validation, fold by fold, and the predictions for them: arrays
    (items, ...) by name. ValueError when a fold is missing or damaged."""
    names = read_folds(folder)
    ids = [name for fold in names for name in fold]
    rows = np.split(np.arange(len(ids)), np.cumsum([len(fold) for fold in names])[:-1])
    return ids, OutOfFold(folder, ids, rows).load()


def _keep_folds(folder: Path, folds: Sequence[list[str]]) -> None:
    """Write the ids that each fold is tested on to folds.json; ValueError where the file has
    others."""
    file = folder / "folds.json"
    if not file.exists():
        write_json(file, {"folds": folds})
        return
    saved = read_folds(folder)
    if saved == folds:
        return
    old, new = ({name: k for k, ids in enumerate(all_) for name in ids} for all_ in (saved, folds))
    changed = sorted(name for name in old | new if old.get(name) != new.get(name))
    example = f"such as {changed[0]}" if changed else "in another order"
    raise UserError(
        f"{file}: folds of other data: {len(saved)} folds of {len(old)} items, expected "
        f"{len(folds)} of {len(new)}; {len(changed)} differ, {example}; another folder starts anew"
    )


def read_folds(folder: str | Path) -> list[list[str]]:
    """The ids that each fold of a cross-validation's folder is tested on."""
    file = Path(folder) / "folds.json"
    place = f"{file}: not the folds of a cross-validation"
    return conform(read_json_object(file, place).get("folds"), list[list[str]], place)


@dataclass(frozen=True)
class CVSummary:
    """Scores of a cross-validation."""

    mean: dict[str, float]
    """of each score over the folds that have a finite one"""
    deviation: dict[str, float]
    """sample standard deviation over the same folds; NaN for one fold"""
    folds: list[dict[str, float]]
    """scores of each fold"""

    def as_dict(self) -> dict:
        """Plain data for metrics.json."""
        return asdict(self)

    def table(self, names: Sequence[str] | None = None) -> str:
        """The scores of these names (default: all) as text, a line each: mean ± deviation, then
        the folds.

        >>> print(summarize([{"accuracy": 0.5}, {"accuracy": 0.7}]).table())
        score              mean ± deviation    fold 0  fold 1
        accuracy          0.600 ± 0.141         0.500   0.700
        """
        head = "".join(f"{f'fold {k}':>8}" for k in range(len(self.folds)))
        lines = [f"{'score':16}{'mean':>7} ± {'deviation':9}  {head}"]
        for name in self.mean if names is None else names:
            scores = "".join(f"{_number(fold.get(name)):8.3f}" for fold in self.folds)
            lines.append(
                f"{name:16}{self.mean[name]:7.3f} ± {self.deviation[name]:<9.3f}  {scores}"
            )
        return "\n".join(lines)


def _number(score: float | None) -> float:
    return math.nan if score is None else score


def _plain_scores(read: Callable[[int], Mapping[str, float]], k: int) -> dict[str, float]:
    return dict(read(k))


def summarize(scores: Sequence[Mapping[str, float]]) -> CVSummary:
    """Mean and deviation of the scores of each fold.

    >>> summarize([{"accuracy": 0.5}, {"accuracy": 0.7}]).mean
    {'accuracy': 0.6}
    """
    mean, deviation = {}, {}
    for name in dict.fromkeys(name for fold in scores for name in fold):
        values = np.array([_number(fold.get(name)) for fold in scores], np.float64)
        values = values[np.isfinite(values)]
        mean[name] = float(values.mean()) if len(values) else math.nan
        deviation[name] = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return CVSummary(mean, deviation, [dict(fold) for fold in scores])


class CrossValidation(Generic[Store]):
    """Fits and scores a model for each fold, and continues an interrupted cross-validation.

    >>> cv = CrossValidation(folder, ids, folds, OutOfFold)  # doctest: +SKIP
    >>> def fit_fold(k):
    ...     model = fit(cv.train_rows(k))
    ...     cv.store.save(k, {"scores": model.predict(cv.folds[k])})
    >>> summary = cv.run(fit_fold, lambda k: read_scores(cv.run_folder(k)))  # doctest: +SKIP
    >>> cv.write(summary)  # doctest: +SKIP

    `store`, OutOfFold or RaggedOutOfFold, keeps the predictions. With `labels`, one an item, rank 0
    prints which folds lack a label. ValueError, before anything is written, when `folder` holds the
    folds of other data. Every rank makes the same object; rank 0 alone writes.
    """

    def __init__(
        self,
        folder: str | Path,
        ids: Sequence[str],
        folds: Sequence[np.ndarray],
        store: type[Store],
        labels: Sequence | None = None,
    ):
        self.ranks = distributed.join()
        self.folder, self.folds = Path(folder), list(folds)
        self.store = self.ranks.rank0_first(lambda: store(folder, ids, folds))
        if labels is not None and self.ranks.rank == 0:
            for line in missing_labels(folds, labels):
                print(line)

    def run_folder(self, k: int) -> Path:
        """The folder of fold `k`, where a fold is a run."""
        return self.folder / f"fold-{k}"

    def train_rows(self, k: int) -> np.ndarray:
        """Rows, ascending, that the model of fold `k` may train on."""
        return np.setdiff1d(np.arange(len(self.store.ids)), self.folds[k])

    def run(
        self,
        fit_fold: Callable[[int], object],
        read_scores: Callable[[int], Mapping[str, float]],
    ) -> CVSummary:
        """Fit each fold that is not done yet; mean and deviation of the scores of all.

        `fit_fold(k)`, on every rank, trains without the rows of fold `k` and saves predictions for
        them in `store`. `read_scores(k)`, on rank 0, reads the scores of a fold that is done.
        """
        scores = []
        for k, rows in enumerate(self.folds):
            if not self.ranks.broadcast_from_rank0(partial(self.store.done, k)):
                if self.ranks.rank == 0:
                    print(f"\nfold {k} of {len(self.folds)}, {len(rows)} items", flush=True)
                fit_fold(k)
            scores.append(self.ranks.broadcast_from_rank0(partial(_plain_scores, read_scores, k)))
        return summarize(scores)

    def write(self, summary: CVSummary, **extra: object) -> None:
        """Write metrics.json (rank 0): the summary, and `extra` by name."""
        if self.ranks.rank == 0:
            write_json(self.folder / "metrics.json", summary.as_dict() | extra)
