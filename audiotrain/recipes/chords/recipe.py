"""The chord recipe: its songs, its module, its scores."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import mlx.core as mx
import numpy as np

from audiotrain.datasets.chords import discovery, writers
from audiotrain.datasets.chords.items import Item
from audiotrain.datasets.chords.items import segments as segments_of
from audiotrain.datasets.items import Corpus
from audiotrain.datasets.summary import ProblemLog
from audiotrain.evaluation import chord_report, plots
from audiotrain.features import audio as audio_files
from audiotrain.recipes.chords import predictor, scoring
from audiotrain.recipes.chords.dataset import Sequential, Windows
from audiotrain.recipes.chords.export import read_card, write_export
from audiotrain.recipes.chords.settings import TrainSettings
from audiotrain.recipes.chords.songs import (
    Song,
    SongLibrary,
    Wanted,
    compose_songs,
    discover,
    first_renderings,
    load_renderings,
    split_by_difficulty,
    statistics,
)
from audiotrain.recipes.chords.training import ChordTraining, count_types, type_weights
from audiotrain.recipes.common import checkpoints, exported, split
from audiotrain.recipes.common.recipe import Experiment, Recipe
from audiotrain.train.distributed import ranks as distributed
from audiotrain.utils.errors import UserError

STEPS = 700  # without data
Songs = list[list[Song]]  # each song in its renderings
Settings = TypeVar("Settings", bound=TrainSettings)


class ChordRecipe(Recipe[TrainSettings]):
    """Trains on songs, as lists of renderings; `save` gets the posteriors of each test song."""

    name = "chords"
    unit = "songs"
    pictures = "confusion-*.png"

    def __init__(
        self,
        settings: TrainSettings,
        library: SongLibrary | None = None,
        items: Mapping[str, Item] | None = None,
        save: scoring.Save | None = None,
    ):
        super().__init__(settings)
        self.library = library or SongLibrary(
            settings.features, settings.cache.expanduser(), settings.seed, settings.soundfonts
        )
        self.items = dict(items or {})  # by name; composed songs have none
        self.save, self.chosen_split = save, settings.split
        if settings.composed_songs or settings.strummed:
            self.required["train"] = 0

    def discover(self, log: ProblemLog) -> Corpus[Item]:
        return discover(self.settings.data, self.settings, log, self.settings.group)

    def load(self, items: Sequence[tuple[str, Item]]) -> list[list[Song] | str | split.Incomplete]:
        self.items |= {item.id: item for _, item in items}
        settings = self.settings
        # Tested as `evaluate` and `predict` do; training varies the pitch instead.
        of_part = {
            "train": partial(
                Wanted, renderings=range(settings.renderings), degraded=settings.degraded
            ),
            "test": partial(Wanted, tuned=True),
        }
        wanted = [of_part.get(part, Wanted)(item) for part, item in items]
        return load_renderings(self.library, wanted, distributed.join())

    def compose(self) -> Songs:
        """The synthesised songs of the run."""
        settings, borrowed = self.settings, []
        counts = {False: settings.composed_songs, True: settings.strummed}
        if settings.progressions is not None and any(counts.values()):
            borrowed = [
                segments_of(item)
                for item in discovery.discover(settings.progressions).items
                if item.clip_label is None
            ]
        return [
            songs
            for strummed, count in counts.items()
            if count
            for songs in compose_songs(
                self.library,
                count,
                settings.composed_seconds,
                borrowed,
                distributed.join(),
                strummed,
                settings.degraded,
            )
        ]

    def read(self, run: Path) -> dict[str, Songs]:
        if self.settings.data is not None:
            parts = super().read(run)
            parts["train"] += self.compose()
            return parts
        composed = self.compose()
        chosen = self.chosen_split
        if chosen is None:
            return split_by_difficulty(composed, self.settings.valid, self.settings.test)
        ids = distributed.join().broadcast_from_rank0(
            lambda: split.copy_split(chosen, run / split.SPLIT)
        )
        named = {renderings[0].name: renderings for renderings in composed}
        return split.pick(named, ids, chosen, self.unit)

    def experiment(self, parts: Mapping[str, Songs], run: Path) -> Experiment:
        settings, valid = self.settings, first_renderings(parts["valid"])
        description = predictor.describe(settings.model, settings.features, settings.window)
        return Experiment(
            make_module(settings, parts["train"]),
            Windows(parts["train"], settings.window, settings.features, settings.plain),
            Sequential(valid, settings.window, settings.features),
            steps=STEPS if settings.data is None else None,
            description={"recognizer": description},
        )

    def score(self, parts: Mapping[str, Songs], run: Path) -> chord_report.ChordReport:
        """Choose how the best model decodes by the validation songs; its scores on the test songs,
        and the chords of one of these."""
        recognizer = predictor.Recognizer.from_checkpoint(run)
        weights = None
        if self.settings.loss.class_power:
            weights = type_weights(self.settings.loss, count_types(parts["train"]))
        scoring.choose_decoding(recognizer, first_renderings(parts["valid"]), weights)
        predictor.write_decoding(recognizer, run / "checkpoints" / "decoding.json")
        tested = first_renderings(parts["test"])
        scores = scoring.score(recognizer, tested, "testing", self.save)
        recordings = scoring.recordings_of(self.items.values())
        # The song that `predict_example` plays, when it is no recording.
        recordings.setdefault(tested[0].name, chord_report.NO_RECORDING | {"audio": "example.wav"})
        scores.write(run, recordings)
        print(f"\nunseen: {scores.table()}")
        self.predict_example(recognizer, tested[0], run)
        if self.settings.export:
            write_export(run, run / "export", self.settings.card)
        return scores

    def predict_example(self, recognizer: predictor.Recognizer, song: Song, run: Path) -> None:
        """Predict an unseen song from its audio: example.wav, labels, a picture, a timeline."""
        item = self.items.get(song.name)
        source: np.ndarray | Path
        if item is None or item.midi:
            source = run / "example.wav"
            audio = self.library.audio_of(song.name, item)
            audio_files.write(source, audio, self.settings.features.rate)
        else:
            source = self.library.source(item)
        prediction = recognizer(source)
        writers.write(
            run / "example.lab", prediction.segments, prediction.confidences, prediction.seconds
        )
        reference = chord_report.spelled_alike(song.segments)
        writers.write(run / "example-reference.lab", reference)
        plots.chords_picture(
            prediction.segments, run / "example.png", reference, title=f"{song.name}, never seen"
        )
        print(f"\n{song.name}, an unseen song ({run / 'example.lab'}):")
        print(plots.timeline(prediction.segments, reference, rows=4))


def with_pretrained(settings: Settings) -> Settings:
    """The settings with the features and the model of `pretrained`. ValueError, a line each, for
    others that were set beside it, and for settings of a new run that would do nothing."""
    if not settings.resume and (lines := list(settings.without_effect())):
        raise UserError("\n".join(lines))
    if settings.export:
        read_card(settings.card)  # refused before training, not after it
    if settings.pretrained is None:
        return settings
    run, sha256 = start_of(settings.pretrained, settings.pretrained_sha256)
    known, default = predictor.Recognizer.from_checkpoint(run), TrainSettings()
    features, model = known.settings, known.model.trunk.settings
    for name, value in (("features", features), ("model", model)):
        if getattr(settings, name) not in (getattr(default, name), value):
            raise UserError(
                f"--{name}…: other than in {settings.pretrained}, expected no such setting, since "
                "--pretrained has its own"
            )
    by_word = settings.pretrained == Path(checkpoints.SHIPPED)
    return replace(
        settings,
        pretrained=settings.pretrained if by_word else run,
        pretrained_sha256=sha256,
        features=features,
        model=model,
    )


def start_of(pretrained: Path, expected: str | None) -> tuple[Path, str | None]:
    """The run or the exported model that `pretrained` names, and the hash of an exported model's
    weights.

    Where the folder is gone, such as on another machine, the shipped model stands in for it when
    its weights have the `expected` hash. ValueError, one line, when no model is found or its hash
    is another one.
    """
    flag = "--pretrained"
    if expected is not None and not pretrained.exists() and pretrained not in checkpoints.WORDS:
        with contextlib.suppress(ValueError):
            return start_of(Path(checkpoints.SHIPPED), expected)
        raise UserError(
            f"{flag} {pretrained}: no such folder; expected an exported model whose weights have "
            f"sha256 {expected} (pretrained_sha256)"
        )
    (folder,) = checkpoints.locate([pretrained], "chords", flag)
    run = checkpoints.newest_run(folder, "chords", flag)
    sha256 = None
    if exported.is_exported(run):
        sha256 = exported.weights_sha256(run, exported.read_description(run, "chords"))
    if expected not in (None, sha256):
        raise UserError(
            f"{flag} {pretrained}: weights with sha256 {sha256}, expected {expected} as in "
            "pretrained_sha256; --pretrained-sha256 none takes these"
        )
    return run, sha256


def make_module(settings: TrainSettings, songs: Songs) -> ChordTraining:
    """The module for these songs: untrained, or with the weights of `pretrained`."""
    mx.random.seed(settings.seed)
    module = ChordTraining(
        settings.features,
        settings.model,
        settings.loss,
        settings.optimization,
        statistics(songs, settings.features),
        count_types(songs),
    )
    if settings.pretrained is not None:
        run, _ = start_of(settings.pretrained, settings.pretrained_sha256)
        known = predictor.Recognizer.from_checkpoint(run)
        module.model.update(known.model.parameters())
    return module
