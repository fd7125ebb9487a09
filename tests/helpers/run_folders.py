"""Run folders written by hand, whose every number is known, for tests of what reads them."""

import csv
import json

import numpy as np

from audiotrain.features import audio
from audiotrain.utils.files import write_json

RATE = 22050
SECONDS = 8.0
REFERENCE = [[0.0, 2.0, "C:maj"], [2.0, 4.0, "A:min"], [4.0, 6.0, "F:maj"], [6.0, 8.0, "G:7"]]


def chords_run(folder, root=0.8, rate=0.001, prediction=None, words="plain", sound=True):
    """A finished run of the chord recipe; `words` is a text that its files hold everywhere."""
    folder.mkdir(parents=True)
    settings = {"data": words, "steps": 40, "seed": 0, "output": str(folder)}
    write_json(
        folder / "config.yaml",  # JSON is YAML
        settings | {"features": {"bins_per_octave": 24}, "optimization": {"learning_rate": rate}},
    )
    corpus = {"root": root, "majmin": 0.7, "sevenths": 0.6, "mirex": 0.65, "seg": 0.9}
    write_json(folder / "metrics.json", {"songs": 2, "viterbi": {"corpus": corpus, words: 0.5}})
    write_json(folder / "history.json", history())
    table(folder / "confusion-root.csv", [["reference", "C", words], ["C", 6, 2], [words, 0, 4]])
    table(folder / "songs.csv", [["song", "mirex"], ["first", 0.65], [words, 0.75]])
    song = {"song": "first", "score": 0.65, "reference": REFERENCE, "start": 0.0, "end": None}
    song["prediction"] = prediction or [[0.0, 2.0, "C:maj"], [2.0, 4.0, "A:maj"], *REFERENCE[2:]]
    song["audio"] = "example.wav" if sound else None
    silent = song | {"song": words, "score": 0.75, "audio": None}
    silent["reference"] = [*REFERENCE[:3], [6.0, 8.0, "X"]]
    write_json(folder / "timelines.json", [song, silent])
    if sound:
        audio.write(folder / "example.wav", tone(), RATE)
    return folder


def history():
    """Four validations; the best loss is at step 30."""
    rows = [
        {"epoch": n, "step": 10 * (n + 1), "train_loss": 3.0 - n / 2, "val_loss": loss}
        for n, loss in enumerate((2.0, 1.5, 1.0, 1.25))
    ]
    log = [{"epoch": 0, "step": step, "loss": 4.0 - step / 20} for step in range(5, 45, 5)]
    return {"rows": rows, "log": log}


def clap_run(folder):
    """A finished run of CLAP's recipe."""
    folder.mkdir(parents=True)
    write_json(folder / "config.yaml", {"pretrained": None, "templates": ["a {label}"]})
    scores = {"text_to_audio_R@1": 0.5, "text_to_audio_median_rank": 2.0}
    write_json(folder / "metrics.json", {"clips": 9, "retrieval": scores, "classes": None})
    write_json(folder / "history.json", history())
    table(folder / "clips.csv", [["clip", "rank"], ["dog.wav", 3]])
    return folder


def trainer_run(folder, best_metric="val_loss", best=0.0, **scores):
    """A finished run of create_trainer, whose metrics.json ends with the last batch's numbers."""
    folder.mkdir(parents=True)
    write_json(folder / "config.yaml", {"training": {"best_metric": best_metric}})
    batch = {"loss": 0.5, "learning_rate": 0.001, "gradient_norm": 0.7, "skipped_steps": 0.0}
    rows = [{"epoch": 0, "step": 4, **scores, "learning_rate": 0.001}]
    write_json(folder / "history.json", {"rows": rows, "log": [{"step": 4, **batch}]})
    chosen = {"best_metric": best_metric, "best_score": best}
    write_json(folder / "metrics.json", batch | scores | chosen)
    return folder


def tone():
    """A 440 Hz tone of SECONDS."""
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(SECONDS * RATE)) / RATE)


def table(path, lines):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)


def unfinished_run(folder):
    """A run that was stopped at step 20 of 40, in the middle of a line of its log."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("steps: 40\nfeatures: {bins_per_octave: 24}\n")
    lines = [json.dumps({"step": step, "epoch": 0, "val_loss": 1.0}) for step in (10, 20)]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 30, "val']))
    return folder
