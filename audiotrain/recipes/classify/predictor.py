"""A trained clip classifier: out of a run folder, clips to probabilities."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from audiotrain.backend.ops import can_compile
from audiotrain.config import conform
from audiotrain.features import augment
from audiotrain.recipes.classify.dataset import Task, starts, window
from audiotrain.recipes.classify.features import InputSettings
from audiotrain.recipes.classify.training import ClassifyTraining, OptimizationSettings, make_model
from audiotrain.recipes.common.checkpoints import best_checkpoint, described
from audiotrain.train import checkpoint
from audiotrain.train.tta import transformed
from audiotrain.utils.errors import UserError

BATCH = 16  # windows at once
MULTILABEL = "multilabel", "several"  # in a checkpoint's description; its name before version 2


def describe(task: Task, inputs: InputSettings, model: Mapping) -> dict:
    """The description of a classifier in its checkpoint's config; `model` is the model's part."""
    classes = {"classes": list(task.classes), MULTILABEL[0]: task.multilabel}
    return classes | asdict(inputs) | dict(model)


@dataclass
class Classifier:
    """A trained classifier in eval mode, with its task and input settings."""

    module: ClassifyTraining
    task: Task
    inputs: InputSettings

    @classmethod
    def from_run(cls, run: Path) -> "Classifier":
        """The best checkpoint of a run folder, or the last where there is none. CheckpointError,
        one line, when it is damaged or not a classifier's."""
        folder = best_checkpoint(run)
        with described(folder, "classifier", "classify") as description:
            classes = conform(description.get("classes"), tuple[str, ...], "classes")
            key = MULTILABEL[MULTILABEL[0] not in description]
            task = Task(classes, conform(description.get(key), bool, key))
            names = [field.name for field in fields(InputSettings)]
            inputs = InputSettings(
                **dict[str, Any]({name: description.get(name) for name in names})
            )
            model = make_model(description)
        module = ClassifyTraining(model, task.multilabel, OptimizationSettings())
        checkpoint.load_weights(module, folder)
        module.eval()
        return cls(module, task, inputs)

    def probabilities(self, features: Sequence[np.ndarray], tta: Sequence[str] = ()) -> np.ndarray:
        """(clips, classes) float64 from the features of clips, the mean over a clip's windows, each
        as it is and by the transforms of each name in `tta`. ValueError where the input is an
        embedding, which has no transforms."""
        if tta and self.inputs.embeddings is not None:
            raise UserError(
                f"tta={' '.join(tta)}, but the model's input is input.embeddings="
                f"{self.inputs.embeddings}, expected log-mel spectrograms"
            )
        transforms = [
            None,
            *(partial(_moved, transform) for name in tta for transform in TTA[name]),
        ]

        def predict(x: mx.array) -> mx.array:
            return self.module.predict_step({"input": x})

        if can_compile():
            predict = mx.compile(predict, inputs=[self.module.state])
        totals = np.zeros((len(features), len(self.task.classes)))
        counts = np.zeros((len(features), 1))
        rows = transformed(self._inputs(features), transforms)
        while batch := list(islice(rows, BATCH)):
            clips, inputs = [clip for clip, _ in batch], [x for _, x in batch]
            filled = inputs + inputs[-1:] * (BATCH - len(inputs))  # one shape
            probabilities = np.array(predict(mx.array(np.stack(filled))))[: len(batch)]
            np.add.at(totals, clips, probabilities.astype(np.float64))
            np.add.at(counts, clips, 1)
        return totals / counts

    def _inputs(self, features: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """(number of a clip, input of the model): the windows of each clip, or its embedding."""
        frames, floor = self.inputs.features.frames, self.inputs.floor
        for clip, array in enumerate(features):
            if self.inputs.embeddings is not None:
                yield clip, np.asarray(array, np.float32)
                continue
            for start in starts(len(array), frames):
                mel = window(array, start, frames).astype(np.float32)
                yield clip, np.maximum(mel, floor)[None]


def _moved(
    transform: Callable[[np.ndarray], np.ndarray], row: tuple[int, np.ndarray]
) -> tuple[int, np.ndarray]:
    clip, mel = row
    return clip, transform(mel[0])[None]


def cropped(end: int, mel: np.ndarray) -> np.ndarray:
    """The first (`end` 0) or last (-1) three quarters of a window (frames, mels), repeated to fill
    the window."""
    frames = len(mel)
    kept = max(1, 3 * frames // 4)
    return window(mel[:kept] if end == 0 else mel[-kept:], 0, frames)


# Test-time augmentation: transforms of a window (frames, mels), by the names that settings have.
TTA = {
    "shift": [partial(augment.shifted, up=up) for up in (-1, 1)],
    "crop": [partial(cropped, end) for end in (0, -1)],
}
