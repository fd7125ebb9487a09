"""The contract of a recipe: what it says of its data, its module and its scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from audiotrain.datasets.items import Corpus
from audiotrain.recipes.common import split
from audiotrain.train.callbacks.base import Callback
from audiotrain.train.data.loader import DataLoader, Dataset
from audiotrain.train.distributed import ranks
from audiotrain.train.module import TrainModule

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Experiment:
    """A module and its samples, and how the best checkpoint is chosen.

    Where the settings name neither steps nor epochs, `steps` are trained; None: `settings.epochs`.
    `description` goes into checkpoints, so that the model can be built again. Where `monitor` stays
    the same, a lower `tie` is better. `can_stop_early` is False where `monitor` says nothing.
    """

    module: TrainModule
    train: Dataset
    valid: Dataset | DataLoader
    steps: int | None = None
    monitor: str = "val_loss"
    mode: str = "min"
    tie: str | None = None
    can_stop_early: bool = True
    description: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[Callback] = ()
    collate: Callable | None = None
    precision: str = "32-true"


class Recipe(ABC, Generic[Settings]):
    """One training run as its settings describe it. `run.train` calls `read`, `experiment` and
    `score` in this order; `read` calls `discover` and `load`."""

    name: ClassVar[str]  # of the presets, of run folders and of the loggers' project
    unit: ClassVar[str] = "clips"  # what the items are called in messages
    pictures: ClassVar[str] = "confusion*.png"  # files of a run that loggers get, a glob pattern
    # Fewest readable items of each part. A recipe that adds items of its own needs fewer.
    required: Mapping[str, int] = {"train": 1, "valid": 1, "test": 1}

    def __init__(self, settings: Settings):
        self.settings: Any = settings

    @abstractmethod
    def discover(self, listed: Path | None) -> Corpus:
        """The labelled items, after printing what they are; every problem goes into the file
        `listed`. ValueError when they cannot be trained on."""

    @abstractmethod
    def load(self, items: Sequence, part: str) -> tuple[Any, list[str]]:
        """The items of a part that can be read, with their features, as anything with a length; a
        line for each other item."""

    @abstractmethod
    def experiment(self, parts: Mapping[str, Any], run: Path) -> Experiment:
        """What is trained, and on what, for `parts` as `load` gives them."""

    @abstractmethod
    def score(self, parts: Mapping[str, Any], run: Path) -> Any:
        """Test the best checkpoint of `run` on parts["test"], write the scores into `run` and print
        them (rank 0)."""

    def read(self, run: Path) -> dict[str, Any]:
        """What can be read of the data by "train", "valid" and "test"; the same on all ranks."""
        listed = split.problems_file(run)
        corpus = ranks.join().first_goes_first(lambda: self.discover(listed))
        with split.withdrawn_on_error(run):
            items = split.divide(corpus, self.settings, run, self.required, self.unit)
            return split.load_parts(items, self.load, self.required, self.unit, listed)
