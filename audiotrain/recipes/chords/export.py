"""A trained recogniser as a folder to pass on, with what is known of its training and a model card.

The card is a template whose `$names` are those of `slots`.
"""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import audiotrain
from audiotrain import config
from audiotrain.config.diff import differences, flat
from audiotrain.config.flags import flag_of
from audiotrain.config.yaml_files import preset_names
from audiotrain.evaluation.chord_report import SHOWN
from audiotrain.recipes.chords.predictor import (
    Recognizer,
    decoding_of,
    describe,
    vocabulary,
)
from audiotrain.recipes.chords.settings import ExportSettings, TrainSettings
from audiotrain.recipes.common import checkpoints, exported
from audiotrain.recipes.common.run import RECIPES, RESUME_MAY_CHANGE
from audiotrain.recipes.common.split import SPLIT, pretrained_of, read_split
from audiotrain.train import checkpoint
from audiotrain.utils.arrays import arrays_of
from audiotrain.utils.errors import UserError
from audiotrain.utils.files import read_json_object

PRESETS = RECIPES / "chords" / "presets"
UNKNOWN = "not known"
# Settings that change nothing of the model, or that a preset or `pretrained` implies.
NOT_IN_COMMAND = (*RESUME_MAY_CHANGE, "export", "card", "pretrained_sha256")


def export(settings: ExportSettings) -> Path:
    """Write the model of a run, or of a checkpoint, to `settings.output`."""
    exported.refuse_other_content(settings.output, settings.overwrite)
    paths = checkpoints.report_model(settings.checkpoint, "chords")
    runs = [run for one in checkpoints.resolve(paths, "chords") for run in one]
    if len(runs) > 1:
        raise UserError(
            f"--checkpoint {paths[0]}: {len(runs)} models, expected one run; "
            "`ensemble --join soup` makes one of several"
        )
    write_export(runs[0], settings.output, settings.card)
    return settings.output


def write_export(run: Path, output: Path, card: Path | None = None) -> None:
    """Write the model of a run as a folder that `Recognizer.from_checkpoint` reads; `card` is the
    template of its model card, by default the package's."""
    template = read_card(card)
    recognizer = Recognizer.from_checkpoint(run)
    description = {
        "recipe": "chords",
        "audiotrain": audiotrain.__version__,
        **describe(recognizer.model.trunk.settings, recognizer.settings, recognizer.window),
        "vocabulary": vocabulary(),
        "decoding": decoding_of(recognizer),
        "trained_on": trained_on(run),
        "training": training_of(run),
        "scores": scores_of(run),
    }
    arrays = arrays_of(recognizer.model)
    pieces = template.safe_substitute
    content = exported.write_model(output, arrays, description, lambda found: pieces(slots(found)))
    weights = content["weights"]
    print(f"{output}: {weights['parameters']} parameters, sha256 {weights['sha256'][:16]}…")


# ---- what is known of a run


def trained_on(run: Path) -> dict[str, Any]:
    """The name of the data, and the songs of each part, by id; songs composed for training; the
    same of the model that training started from."""
    settings = settings_of(run)
    parts = read_split(run / SPLIT) if (run / SPLIT).is_file() else {}
    start = None if settings is None else started_from(run, settings)
    return {
        "data": None if settings is None or settings.data is None else settings.data.name,
        "composed_songs": None if settings is None else settings.composed_songs,
        "strummed_songs": None if settings is None else settings.strummed,
        "songs": parts,
        **({} if start is None else {"pretrained": start}),
    }


def started_from(run: Path, settings: TrainSettings) -> dict[str, Any] | None:
    """The name, the hash and the `trained_on` of the model that training started from; that is None
    where the model is gone or has other weights by now. None for training from scratch."""
    if settings.pretrained is None:
        return None
    start, known = pretrained_of(run), None
    if start is not None and exported.is_exported(start):
        content = exported.read_description(start, "chords")
        if exported.weights_sha256(start, content) == settings.pretrained_sha256:
            known = content["trained_on"]
    elif start is not None:
        known = trained_on(start)
    name, sha256 = settings.pretrained.name, settings.pretrained_sha256
    return {"name": name, "sha256": sha256, "trained_on": known}


def training_of(run: Path) -> dict[str, Any]:
    """The command that trains such a run, with the names of folders in place of their paths, and
    the seconds that training took."""
    settings, folder = settings_of(run), run / "checkpoints" / "last"
    seconds = checkpoint.load_meta(folder).get("seconds") if checkpoint.exists(folder) else None
    return {
        "command": None if settings is None else command_of(settings),
        "seconds": None if seconds is None else round(seconds),
        "versions": checkpoint.versions(),
    }


def scores_of(run: Path) -> dict[str, Any]:
    """Scores of the run's test songs, by the Viterbi decoder."""
    if not (run / "metrics.json").is_file():
        return {}
    metrics = read_json_object(run / "metrics.json")
    corpus = metrics.get("viterbi", {}).get("corpus", {})
    shown = {name: round(corpus[name], 4) for name in SHOWN if corpus.get(name) is not None}
    return {"songs": metrics.get("songs"), "corpus": shown}


def settings_of(run: Path) -> TrainSettings | None:
    """The settings in a run folder; None of a folder without them, such as a soup."""
    file = run / "config.yaml"
    return config.load(TrainSettings, ["--config", str(file)]) if file.is_file() else None


def command_of(settings: TrainSettings) -> str:
    """The shortest command that trains with these settings.

    >>> command_of(TrainSettings(data=Path("/data/songs"), steps=3, export=True))
    'audiotrain chords --data songs --steps 3'
    """
    names = [None, *preset_names(PRESETS)]
    return min((_command(settings, name) for name in names), key=len)


def _command(settings: TrainSettings, preset: str | None) -> str:
    chosen = [] if preset is None else ["--preset", preset]
    base = config.load(TrainSettings, chosen, presets=PRESETS)
    words = ["audiotrain chords", *chosen]
    changed = differences(flat(config.to_plain(base)), flat(config.to_plain(settings)))
    implied = ("features.", "model.") if settings.pretrained is not None else ()
    for name, (_, value) in changed.items():
        if name in NOT_IN_COMMAND or name.startswith(implied):
            continue
        if isinstance(value, bool):
            words.append(flag_of(name if value else f"no_{name}"))
            continue
        if name == "pretrained" and value == checkpoints.SHIPPED:
            value = []  # the flag alone
        values = value if isinstance(value, list) else [value]
        words += [flag_of(name), *(Path(str(one)).name for one in values)]
    return " ".join(words)


# ---- the model card


def read_card(path: Path | None) -> string.Template:
    """The template in a file, or of this name beside the presets; by default the package's.
    ValueError when it cannot be read."""
    if path is None:
        path = Path(__file__).with_name("model_card.md")
    beside = PRESETS / path.name
    if path.parent == Path() and not path.exists() and beside.is_file():
        path = beside
    try:
        return string.Template(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--card {path}: cannot be read: {error}") from None


def slots(content: Mapping[str, Any]) -> dict[str, str]:
    """What the names in a card's template stand for, by the content of model.json."""
    trained, training, scores = content["trained_on"], content["training"], content["scores"]
    seconds, metrics = training["seconds"], scores.get("corpus", {})
    rows = [metrics, ["---"] * len(metrics), [f"{value:.3f}" for value in metrics.values()]]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return {
        "version": content["audiotrain"],
        "architecture": str(content["model"]["architecture"]),
        "parameters": f"{content['weights']['parameters']:,}",
        "sha256": content["weights"]["sha256"],
        "chord_types": ", ".join(content["vocabulary"]["chord_type"]),
        "features": ", ".join(f"{name} {value}" for name, value in content["features"].items()),
        "data": sources(trained),
        "command": training["command"] or UNKNOWN,
        "minutes": UNKNOWN if seconds is None else f"{seconds / 60:.0f}",
        "test_songs": str(scores.get("songs") or UNKNOWN),
        "scores": table if metrics else UNKNOWN,
    }


def sources(trained: Mapping[str, Any] | None) -> str:
    """What a model was trained on, in words, by `trained_on`."""
    if trained is None:
        return UNKNOWN
    parts = ", ".join(f"{len(ids)} {part}" for part, ids in trained["songs"].items())
    words = [f"{trained['data']} ({parts or UNKNOWN})"] if trained["data"] else []
    if composed := trained["composed_songs"]:
        words.append(f"{composed} songs composed by audiotrain")
    if strummed := trained.get("strummed_songs"):
        words.append(f"{strummed} songs of a strummed guitar")
    if start := trained.get("pretrained"):
        sha256 = "" if start["sha256"] is None else f", sha256 {start['sha256'][:12]}"
        model = "the model of audiotrain" if start["name"] == checkpoints.SHIPPED else start["name"]
        before = sources(start["trained_on"])
        words.append(f"starting from the weights of {model}{sha256}, trained on: {before}")
    return "; ".join(words) or UNKNOWN
