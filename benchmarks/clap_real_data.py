"""CLAP on real clips: trained from scratch on ESC-10's folds 1, 2 and 3 with Berklee's, tested on
fold 5; then fine-tuned on Berklee by projection and by LoRA, with retrieval before and after.

Prints the zero-shot accuracy beside that of logistic regression on log-mel statistics, what hearing
a long recording in windows gains, the accuracy on the order of two events, recalls before and after
fine-tuning, and the time of a run with cached towers against one without. Run:
python benchmarks/clap_real_data.py [--data ../shared/data] [--output FOLDER] [--clips esc]
"""

import argparse
import csv
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from audiotrain.recipes.clap import commands as clap  # isort: skip (BLAS before MLX)
import numpy as np

from audiotrain.datasets import captions, splits
from audiotrain.datasets.synthesis import sound_scenes
from audiotrain.evaluation import classification, linear_probe
from audiotrain.features import audio
from audiotrain.models.clap.feature_extraction import ClapFeatures
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.scoring import score_clips

TEST_FOLD = "5"
SHOWN = ("R@1", "R@5", "R@10", "mAP@10")
ORDERS = 200  # pairs of clips in both orders
LONG, EVENTS = 100, 3  # recordings for the windows, and clips of one class in each
PAUSES = 2.0, 8.0  # seconds between them, at least and at most
RATE = 48000


def table_of(folder: Path) -> list[dict[str, str]]:
    """Rows of a folder's metadata.csv."""
    with open(folder / "metadata.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def link(source: Path, folder: Path, rows: Iterable[dict[str, str]]) -> None:
    """A data folder with the clips of rows, which have file_name, caption, label and split."""
    rows = list(rows)
    folder.mkdir(parents=True)
    for row in rows:
        (folder / row["file_name"]).symlink_to((source / row["file_name"]).resolve())
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file_name", "caption", "label", "split"])
        writer.writeheader()
        writer.writerows(rows)


def make_folders(data: Path, folder: Path) -> tuple[Path, Path]:
    """Data folders: both collections with fold 5 as test, and Berklee alone with its own split."""
    berklee = captions.check(captions.discover(data / "berklee"))
    parts = splits.split(berklee, 0, (0.8, 0.1, 0.1))
    place = {clip.id: part for part, own in parts.items() for clip in own}
    own = [
        {"file_name": row["file_name"], "caption": row["caption"], "label": "", "split": part}
        for row in table_of(data / "berklee")
        if (part := place.get(row["file_name"]))
    ]
    esc = [
        {
            "file_name": row["file_name"],
            "caption": row["caption"],
            "label": row["label"],
            "split": "test" if row["fold"] == TEST_FOLD else "train",
        }
        for row in table_of(data / "esc10")
    ]
    link(data / "berklee", folder / "berklee", own)
    training = [row for row in own if row["split"] == "train"]
    link(data / "berklee", folder / "both", training)
    link(data / "esc10", folder / "esc", esc)
    for row in esc:
        (folder / "both" / row["file_name"]).symlink_to(
            (data / "esc10" / row["file_name"]).resolve()
        )
    with open(folder / "both" / "metadata.csv", "a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, ["file_name", "caption", "label", "split"]).writerows(esc)
    return folder / "both", folder / "berklee"


def run(*words: str) -> float:
    """Seconds of a command of the recipe; SystemExit where it fails."""
    began = time.perf_counter()
    if code := clap.main([str(word) for word in words]):
        raise SystemExit(code)
    return time.perf_counter() - began


def statistics(clip: captions.Clip, features: ClapFeatures) -> np.ndarray:
    """Means and deviations of a clip's log-mel frames and of their differences (256,)."""
    mel = features.log_mel(clip.read(features.settings.rate))
    steps = np.diff(mel, axis=0)
    return np.concatenate([mel.mean(0), mel.std(0), steps.mean(0), steps.std(0)])


def peer_accuracy(clips: list[captions.Clip]) -> float:
    """Of logistic regression on log-mel statistics, on the test clips."""
    labelled = [clip for clip in clips if clip.label]
    names = sorted({clip.label for clip in labelled})
    features = ClapFeatures()
    inputs = np.array([statistics(clip, features) for clip in labelled])
    targets = np.array([names.index(clip.label) for clip in labelled])
    tested = np.array([clip.split == "test" for clip in labelled])
    mean, deviation = inputs[~tested].mean(0), inputs[~tested].std(0) + 1e-6
    inputs = (inputs - mean) / deviation
    fitted = linear_probe.fit_linear_probe(inputs[~tested], targets[~tested], C=0.1)
    return classification.class_accuracies(fitted(inputs[tested]), targets[tested])["accuracy"]


def order_accuracy(embedder: Embedder, clips: list[captions.Clip]) -> float:
    """Share of two events in a row, both in one window of the model, whose caption is nearer than
    that of the other order."""
    rng, seconds = np.random.default_rng(0), embedder.features.settings.seconds
    right = []
    with tempfile.TemporaryDirectory() as folder:
        paths, own, reversed_ = [], [], []
        while len(paths) < ORDERS:
            pair = [clips[int(number)] for number in rng.integers(len(clips), size=2)]
            if pair[0].label == pair[1].label:
                continue
            events = [(clip.read(RATE), clip.captions[0]) for clip in pair]
            joined = sound_scenes.compose_clips(events, rng, RATE, "then", seconds)
            paths.append(Path(folder) / f"{len(paths)}.wav")
            audio.write(paths[-1], joined.audio, RATE)
            own.append(joined.caption)
            reversed_.append(joined.reversed_caption)
        embedded = embedder.audio(paths, "two events")
        right = (embedded * embedder.text(own)).sum(1) > (embedded * embedder.text(reversed_)).sum(
            1
        )
    return float(right.mean())


def windows_gain(embedder: Embedder, clips: list[captions.Clip]) -> tuple[float, float]:
    """Accuracy on long recordings by their first window, and by all windows: clips of a class,
    with pauses before, between and after them."""
    rng = np.random.default_rng(0)
    names = sorted({clip.label for clip in clips})
    right = []
    with tempfile.TemporaryDirectory() as folder:
        paths, classes = [], []
        for number in range(LONG):
            own = [clip for clip in clips if clip.label == names[number % len(names)]]
            parts = [np.zeros(int(rng.uniform(*PAUSES) * RATE), np.float32)]
            for place in rng.choice(len(own), EVENTS, replace=False):
                pause = np.zeros(int(rng.uniform(*PAUSES) * RATE), np.float32)
                parts += [own[place].read(RATE), pause]
            paths.append(Path(folder) / f"{number}.wav")
            audio.write(paths[-1], np.concatenate(parts), RATE)
            classes.append(number % len(names))
        texts = embedder.text([f"This is a sound of {name}" for name in names])
        embedded = embedder.embed(paths, "long recordings", strict=True)
        for one, target in zip(embedded.spans, classes, strict=True):
            right.append([np.argmax(texts @ v) == target for v in (one.embeddings[0], one.mean)])
    first, mean = np.mean(right, axis=0)
    return float(first), float(mean)


def recalls(name: str, model: Path, clips: list[captions.Clip]) -> None:
    """Print retrieval of clips with a model."""
    scores = score_clips(Embedder.from_folder(model), clips).as_dict()["retrieval"]
    for direction in ("text_to_audio", "audio_to_text"):
        numbers = "  ".join(f"{key} {100 * scores[f'{direction}_{key}']:5.1f}" for key in SHOWN)
        print(f"{name:24} {direction.replace('_', ' '):14} {numbers}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--output", type=Path, help="folder for data and runs; nothing: deleted")
    parser.add_argument(
        "--minutes", type=float, default=20, help="of training from scratch, at most"
    )
    parser.add_argument(
        "--clips", choices=("both", "esc"), default="both", help="of the training from scratch"
    )
    parser.add_argument("words", nargs="*", help="after --: further settings of that training")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.output or Path(temporary)
        both, berklee = make_folders(options.data, folder)
        base = folder / "scratch"
        where = ("--data", folder / options.clips, "--output", base)
        minutes = ("--max-minutes", options.minutes)
        took = run("--preset", "clap-small", *where, *minutes, *options.words)
        clips = captions.discover(both).items
        tested = [clip for clip in clips if clip.split == "test"]
        embedder = Embedder.from_folder(base)
        found = score_clips(embedder, tested).as_dict()["classes"]
        print(f"\nfrom scratch in {took:.0f} s: zero-shot on fold {TEST_FOLD}: {found}")
        peer = peer_accuracy(clips)
        print(f"logistic regression on log-mel statistics: accuracy {peer:.3f}")
        first, mean = windows_gain(embedder, [clip for clip in tested if clip.label])
        print(f"{EVENTS} clips of a class with pauses: {first:.3f} by the first window, ", end="")
        print(f"{mean:.3f} by all ({LONG} recordings)")
        order = order_accuracy(embedder, tested)
        print(f"order of two events of fold {TEST_FOLD}, {ORDERS} pairs: right {order:.3f}")
        unseen = [clip for clip in captions.discover(berklee).items if clip.split == "test"]
        model, seconds = base / "model", {}
        for name, words in {
            "projection": ["--mode", "projection"],
            "projection, no cache": ["--mode", "projection", "--no-cache-towers"],
            "lora": ["--mode", "lora"],
        }.items():
            tuned = folder / name.replace(", ", "-").replace(" ", "-")
            where = ("--pretrained", model, "--data", berklee, "--output", tuned)
            rate = ("--epochs", "10", "--optimization.head-rate", "1e-3")
            seconds[name] = run(*where, *rate, *words)
        print(f"\n{len(unseen)} clips of Berklee that no run was trained on:")
        recalls("before", model, unseen)
        for name in ("projection", "lora"):
            recalls(f"{name}, 10 epochs", folder / name / "model", unseen)
        print("seconds: " + ", ".join(f"{name} {taken:.0f}" for name, taken in seconds.items()))


if __name__ == "__main__":
    main()
