"""The contract of a recipe: its data, its module and its scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from audiotrain.datasets.items import Corpus
from audiotrain.datasets.summary import ProblemLog
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
    the same, a lower `tie` is better. `can_stop_early` is False where `monitor` is
    not informative.
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


class Recipe(ABC, Generic[Settings]):
    """One training run as its settings describe it: `run.train` calls `read` (which calls
    `discover` and `load`), `experiment` and `score`."""

    name: ClassVar[str]  # of the presets, of run folders and of the loggers' project
    unit: ClassVar[str] = "clips"  # what the items are called in messages
    pictures: ClassVar[str] = "confusion*.png"  # files of a run that loggers get, a glob pattern

    def __init__(self, settings: Settings):
        shared: Any = settings  # RunSettings of the recipe
        self.settings: Any = shared
        # Fewest readable items of each part; a recipe that adds items of its own needs fewer.
        self.required = {"train": 1, "valid": 1, "test": 1}
        # Whether an item that cannot be read, or not whole, stops the run.
        self.strict: bool = shared.strict
        self.chosen_split: Path | None = None  # split.json of another run, whose parts are taken

    @abstractmethod
    def discover(self, log: ProblemLog) -> Corpus:
        """The labelled items, after printing what they are; `log` gets every problem. ValueError
        when they cannot be trained on."""

    @abstractmethod
    def load(self, items: Sequence[tuple[str, Any]]) -> list:
        """The content of each (part, item), anything but a string, or a line with the reason why it
        cannot be read. All ranks call it together, and may share the work (`preparation`)."""

    @abstractmethod
    def experiment(self, parts: Mapping[str, list], run: Path) -> Experiment:
        """What is trained, and on what, for `parts` as `read` gives them."""

    @abstractmethod
    def score(self, parts: Mapping[str, list], run: Path) -> Any:
        """Test the best checkpoint of `run` on parts["test"], write the scores into `run` and print
        them (rank 0)."""

    def begin(self, parts: dict[str, list], run: Path) -> None:
        """Called with the parts before anything is loaded, which may take long: may refuse
        settings, and add items."""

    def read(self, run: Path) -> dict[str, list]:
        """What `load` reads of the data, by "train", "valid" and "test"; the same on all ranks."""
        log = split.problem_log(run)
        corpus = ranks.join().rank0_first(lambda: self.discover(log))
        with split.withdrawn_on_error(run):
            parts = split.divide(self, corpus, run)
            self.begin(parts, run)
            return split.load_parts(self, parts, log)
