"""Settings of the commands that use a trained CLAP; their defaults are stated here and nowhere
else."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from audiotrain.datasets.captions.discovery import TEMPLATES
from audiotrain.utils.files import refuse_existing

RESULTS = (".csv", ".json")


@dataclass(frozen=True)
class EvaluateSettings:
    """Score a model on a captioned folder: retrieval both ways, and classes where it has labels."""

    data: Path
    """folder of audio and captions, a table or a tar"""
    checkpoint: str = "runs"
    """run folder, folder of runs (its newest), folder of a Hugging Face CLAP, or its hub id"""
    output: Path | None = None
    """folder for metrics.json, tables and pictures; nothing: RUN/evaluation-NAME, and -SPLIT
    of a part, or runs/evaluation-NAME-of-MODEL for a model from elsewhere"""
    overwrite: bool = False
    """replace scores that are in --output already"""
    split: Literal["train", "valid", "test"] | None = None
    """only this part, of the run's own split or as the data say; nothing: everything"""
    group: str | None = None
    """column of a table whose equal values are one group, kept together by the probe's folds"""
    templates: tuple[str, ...] = TEMPLATES
    """sentences that name a class, with {label} in them"""
    linear_probe: bool = True
    """fit a linear probe where clips have labels"""
    strict: bool = False
    """stop at a file that can't be read instead of leaving it out"""
    batch_size: int | None = None
    """windows embedded at once; nothing: what suits the device"""
    workers: int | None = None
    """processes or threads that read recordings; default: one for each core"""

    def __post_init__(self):
        _check_templates(self.templates)


@dataclass(frozen=True)
class CvSettings:
    """Cross-validate what a model knows of classes: zero-shot, and by a linear probe."""

    data: Path
    """folder of audio with labels, a table or a tar"""
    checkpoint: str = "runs"
    """run folder, folder of runs (its newest), folder of a Hugging Face CLAP, or its hub id"""
    output: Path | None = None
    """folder for folds.json, oof, metrics.json, tables; nothing: RUN/cv-NAME, or
    runs/cv-NAME-of-MODEL for a model from elsewhere"""
    overwrite: bool = False
    """replace scores that are in --output already"""
    folds: int = 5
    """parts of the clips, by group, each with about the same share of every class"""
    fold_column: str | None = None
    """column of a table that says the fold of each clip, such as ESC-50's fold"""
    group: str | None = None
    """column of a table whose equal values stay in one fold"""
    seed: int = 0
    """seed of the folds"""
    templates: tuple[str, ...] = TEMPLATES
    """sentences that name a class, with {label} in them"""
    strict: bool = False
    """stop at a file that can't be read instead of leaving it out"""
    batch_size: int | None = None
    """windows embedded at once; nothing: what suits the device"""
    workers: int | None = None
    """processes or threads that read recordings; default: one for each core"""

    def __post_init__(self):
        _check_templates(self.templates)
        if self.folds < 2:
            raise ValueError(f"folds={self.folds}, expected 2 or more")


@dataclass(frozen=True)
class EmbedSettings:
    """Write the embeddings of all audio in a folder to one file."""

    data: Path
    """folder of audio, at any depth, in tars too; or one file"""
    output: Path
    """file to write: .safetensors or .npz"""
    checkpoint: str = "runs"
    """run folder, folder of runs (its newest), folder of a Hugging Face CLAP, or its hub id"""
    windows: bool = False
    """an embedding for each 10 s instead of one for each file: long recordings can be searched"""
    overwrite: bool = False
    """replace a file that exists already"""
    strict: bool = False
    """stop at a file that can't be read instead of leaving it out"""
    batch_size: int | None = None
    """windows embedded at once; nothing: what suits the device"""
    workers: int | None = None
    """processes or threads that read recordings; default: one for each core"""


@dataclass(frozen=True)
class SearchSettings:
    """Find the recordings that fit a text, or sound like a recording."""

    index: Path
    """file that `embed` wrote; or a folder of audio, embedded now in windows"""
    query: str = ""
    """what to look for, in words"""
    audio: Path | None = None
    """recording to look for instead"""
    top: int = 10
    """how many to show"""
    output: Path | None = None
    """file for the results: .csv or .json"""
    overwrite: bool = False
    """replace a file that exists already"""
    checkpoint: str = "runs"
    """run folder, folder of runs (its newest), folder of a Hugging Face CLAP, or its hub id"""
    batch_size: int | None = None
    """windows embedded at once; nothing: what suits the device"""
    workers: int | None = None
    """processes or threads that read recordings; default: one for each core"""

    def __post_init__(self):
        if bool(self.query.strip()) == (self.audio is not None):
            raise ValueError(
                "search: expected words to look for, such as search 'rain on a roof', or --audio "
                "FILE, and not both"
            )
        _check_top(self.top)


@dataclass(frozen=True)
class ClassifySettings:
    """Tell the class of audio files by the names of the classes, without training."""

    audio: tuple[Path, ...]
    """audio files, or folders of them"""
    labels: tuple[str, ...]
    """names of classes: dog,rain or dog rain or FILE.txt with one a line"""
    checkpoint: str = "runs"
    """run folder, folder of runs (its newest), folder of a Hugging Face CLAP, or its hub id"""
    templates: tuple[str, ...] = TEMPLATES
    """sentences that name a class, with {label} in them"""
    top: int = 3
    """how many classes to show for a file"""
    output: Path | None = None
    """file for the results: .csv or .json"""
    overwrite: bool = False
    """replace a file that exists already"""
    strict: bool = False
    """stop at a file that can't be read instead of leaving it out"""
    batch_size: int | None = None
    """windows embedded at once; nothing: what suits the device"""
    workers: int | None = None
    """processes or threads that read recordings; default: one for each core"""

    def __post_init__(self):
        _check_templates(self.templates)
        _check_top(self.top)
        if not self.audio:
            raise ValueError("--audio: nothing follows, expected audio files or folders")


def read_labels(labels: Sequence[str]) -> list[str]:
    """Names of classes from a text file, or from words with commas between.

    ValueError when they are fewer than two.

    >>> read_labels(["dog,rain", "sea waves"])
    ['dog', 'rain', 'sea waves']
    """
    source = "--labels"
    if len(labels) == 1 and labels[0].lower().endswith(".txt"):
        source = f"--labels {labels[0]}"
        try:
            words = Path(labels[0]).read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise ValueError(f"{source}: can't be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{source}: not UTF-8 text (byte {error.start})") from None
    else:
        words = [word for given in labels for word in given.split(",")]
    names = list(dict.fromkeys(" ".join(word.split()) for word in words if word.strip()))
    if len(names) < 2:
        found = ", ".join(names) or "none"
        raise ValueError(f"{source}: found {found}, expected two classes or more")
    return names


def check_result(path: Path | None, overwrite: bool) -> None:
    """ValueError when a file of results cannot be `path`, before anything is computed."""
    if path is None:
        return
    if path.suffix not in RESULTS:
        raise ValueError(f"--output {path}: found {path.suffix!r}, expected {' or '.join(RESULTS)}")
    refuse_existing(path, overwrite)


def _check_templates(templates: Sequence[str]) -> None:
    if not templates:
        raise ValueError("--templates: nothing follows, expected sentences with {label} in them")
    for template in templates:
        try:
            right = template.format(label="dog") != template.format(label="rain")
        except (LookupError, ValueError):
            right = False
        if not right:
            raise ValueError(
                f"--templates: found {template!r}, expected {{label}} and no other {{}}"
            )


def _check_top(top: int) -> None:
    if top < 1:
        raise ValueError(f"top={top}, expected 1 or more")
