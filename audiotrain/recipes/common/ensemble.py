"""Several runs as one model: which ones, with what weights, joined how; the file ensemble.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from audiotrain.config import conform
from audiotrain.recipes.common.checkpoints import ENSEMBLE, FOLDS, resolve
from audiotrain.train.ensembling import member_weights, run_weights
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_json_object, write_json


@dataclass(frozen=True)
class EnsembleSpec:
    """The runs of each member (a run, or the folds of a cross-validation), a weight for each member
    (none: equal ones), which its runs share, and how predictions are joined.

    `extra` holds what a recipe adds: plain data, which stand in the file by name.
    """

    members: tuple[tuple[Path, ...], ...]
    weights: tuple[float, ...] = ()
    join: str = "mean"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs(self) -> list[Path]:
        """The runs of all members."""
        return [run for member in self.members for run in member]

    @property
    def run_weights(self) -> list[float]:
        """A weight for each run; they sum to 1."""
        return run_weights(self.weights, [len(member) for member in self.members])

    @classmethod
    def of(
        cls, paths: Sequence[Path], recipe: str, join: str | None, joins: Sequence[str]
    ) -> "EnsembleSpec":
        """The ensemble of the paths of `--checkpoint`: one ensemble, or members of equal weight.
        ValueError, one line, for a `join` beside an ensemble, which has its own."""
        if len(paths) == 1 and (paths[0] / ENSEMBLE).is_file():
            if join is not None:
                raise UserError(
                    f"--join {join}: {paths[0]} is an ensemble with a join; expected none"
                )
            return cls.read(paths[0], recipe, joins)
        return cls(tuple(resolve(paths, recipe)), join=join or "mean")

    def write(self, folder: Path) -> None:
        """Save it as `folder`/ensemble.json."""
        members = [[str(run.resolve()) for run in member] for member in self.members]
        content = {"members": members, "weights": list(self.weights), "join": self.join}
        write_json(folder / ENSEMBLE, content | dict(self.extra))

    @classmethod
    def read(cls, folder: Path, recipe: str, joins: Sequence[str]) -> "EnsembleSpec":
        """The ensemble in a folder of `write`, joined by one of the recipe's `joins`. A member may
        be one path instead of a list. ValueError, one line, when the file is damaged."""
        file = folder / ENSEMBLE
        place = f"{file}: not an ensemble of the {recipe} recipe"
        content = read_json_object(file)
        written = conform(content.pop("members", None), list[str | list[str]], place)
        weights = conform(content.pop("weights", None), tuple[float, ...], place)
        members = tuple(tuple(map(Path, [one] if isinstance(one, str) else one)) for one in written)
        join = content.pop("join", None)
        if join not in joins or not members or not all(members):
            raise UserError(f"{place}: {len(members)} members, join {join}")
        try:
            member_weights(weights or None, len(members))
        except UserError as error:
            raise UserError(f"{place}: {error}") from None
        return cls(members, weights, join, content)


def refuse_used(output: Path) -> None:
    """ValueError when a folder for an ensemble holds a run, a cross-validation or results."""
    for name in (ENSEMBLE, "checkpoints", FOLDS, "metrics.json"):
        if (output / name).exists():
            raise UserError(f"{output}: holds {name} already; --output names another folder")


def are_cross_validations(paths: Sequence[Path]) -> bool:
    """Whether all paths are cross-validations, whose out-of-fold predictions can be joined."""
    return all((path / FOLDS).is_file() for path in paths)
