"""A trained clip classifier: out of a run folder, clips to probabilities."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiotrain.models.clap.feature_extraction import ClapFeatureSettings
from audiotrain.recipes.classify.dataset import Heard, HearingSettings, Task, starts, window
from audiotrain.recipes.classify.training import ClassifyTraining, OptimizationSettings, make_model
from audiotrain.train import checkpoint
from audiotrain.train.engine.compiled_function import can_compile

BATCH = 16  # windows at once


def describe(task: Task, hearing: HearingSettings, parts: Mapping) -> dict:
    """What `Classifier.from_run` needs, for the checkpoint's config; `parts` are the model's."""
    return {"classes": list(task.classes), "several": task.several, **asdict(hearing), **parts}


@dataclass
class Classifier:
    """A model in eval mode, what it tells, and what it hears."""

    module: ClassifyTraining
    task: Task
    hearing: HearingSettings

    @classmethod
    def from_run(cls, run: Path) -> "Classifier":
        """The best checkpoint of a run folder. CheckpointError, one line, when it is damaged or
        not a classifier's."""
        found = [run / "checkpoints" / name for name in ("best", "last")]
        folder = next((one for one in found if checkpoint.exists(one)), None)
        if folder is None:
            raise checkpoint.CheckpointError(f"{run}: no checkpoints/best or checkpoints/last")
        described = (checkpoint.load_meta(folder).get("config") or {}).get("classifier")
        if described is None:
            raise checkpoint.CheckpointError(f"{folder}: not a checkpoint of the classify recipe")
        try:
            task = Task(tuple(described["classes"]), described["several"])
            hearing = HearingSettings(
                ClapFeatureSettings(**described["features"]),
                *(described[name] for name in ("floor", "longest", "embeddings")),
            )
            module = ClassifyTraining(make_model(described), task.several, OptimizationSettings())
        except (KeyError, TypeError, ValueError) as error:
            raise checkpoint.CheckpointError(
                f"{folder}: its classifier is not one of this version ({error!r})"
            ) from None
        checkpoint.load_weights(module, folder)
        module.eval()
        return cls(module, task, hearing)

    def probabilities(self, heard: Heard) -> np.ndarray:
        """(clips, classes) float64, of a clip the mean of its windows."""
        frames, floor = self.hearing.features.frames, self.hearing.floor
        if self.hearing.embeddings is not None:
            places = [(clip, 0) for clip in range(len(heard.sounds))]
        else:
            places = [
                (clip, start)
                for clip, mel in enumerate(heard.sounds)
                for start in starts(len(mel), frames)
            ]

        def row(clip: int, start: int) -> np.ndarray:
            sound = heard.sounds[clip]
            if self.hearing.embeddings is not None:
                return np.asarray(sound, np.float32)
            return np.maximum(window(sound, start, frames).astype(np.float32), floor)[None]

        found = self._rows(places, row)
        owners = [clip for clip, _ in places]
        totals = np.zeros((len(heard.sounds), len(self.task.classes)))
        np.add.at(totals, owners, found)
        return totals / np.bincount(owners, minlength=len(totals))[:, None]

    def _rows(self, places: Sequence[tuple], row: Callable) -> np.ndarray:
        """Probabilities (places, classes) of what `row` gives for them, a batch at a time."""

        def predict(x):
            return self.module.predict_step({"input": x})

        if can_compile():
            predict = mx.compile(predict, inputs=[self.module.state])
        found = []
        for first in range(0, len(places), BATCH):
            batch = [row(*place) for place in places[first : first + BATCH]]
            filled = batch + batch[-1:] * (BATCH - len(batch))  # one shape
            found.append(np.array(predict(mx.array(np.stack(filled))))[: len(batch)])
        return np.concatenate(found).astype(np.float64)
