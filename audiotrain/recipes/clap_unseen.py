"""What a trained CLAP finds among clips that it has not heard: a table and a few examples."""

from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from audiotrain.datasets.clips import Clip
from audiotrain.history import write_json
from audiotrain.models.clap import CLAP
from audiotrain.recipes.clap_data import Captions, Library, Sounds, Texts, Vectors
from audiotrain.recipes.terminal import progress
from audiotrain.retrieval import retrieval_scores, retrieve
from audiotrain.retrieval_report import recall_picture, retrieval_csv

COLUMNS = ("R@1", "R@5", "R@10", "mAP@10", "median_rank")


def score_unseen(
    model: Path, library: Library, clips: Sequence[Clip], batch_size: int, run: Path
) -> dict:
    """Retrieval both ways with the model folder; prints it, writes metrics.json, retrieval.csv and
    recall.png into the run. Captions of one meaning are as good as each other."""
    clap, captions = CLAP.from_pretrained(model), Captions.of(clips)
    sounds = library.loader(Sounds(library.clips(clips), Vectors()), batch_size)
    texts = library.loader(Texts(captions.texts, library.tokenizer, Vectors()), batch_size)
    audio = [clap.embed_audio(b["mel"], b["is_longer"]) for b in _evaluated(sounds, "unseen clips")]
    text = [clap.embed_text(b["input_ids"], b["attention_mask"]) for b in texts]
    audio, text = np.array(mx.concatenate(audio)), np.array(mx.concatenate(text))
    found = retrieve(audio, text, captions.clips, captions.meanings)
    scores = retrieval_scores(found)
    result = {"clips": len(clips), "captions": len(captions.texts), "retrieval": scores}
    write_json(run / "metrics.json", result)
    retrieval_csv(scores, run / "retrieval.csv")
    recall_picture(found, run / "recall.png", f"{len(clips)} unseen clips")
    print(f"\n{len(clips)} unseen clips, {len(captions.texts)} captions:")
    print(table(scores))
    print(examples(audio, text, clips, captions))
    return result


def _evaluated(loader, text: str):
    for batch in progress(loader, text):
        mx.eval(batch)
        yield batch


def table(scores: dict[str, float]) -> str:
    """Recalls and mAP in percent, and the median rank, a row a direction."""
    lines = [f"{'':<16}" + "".join(f"{name.replace('_', ' '):>13}" for name in COLUMNS)]
    for direction in ("text_to_audio", "audio_to_text"):
        values = [scores[f"{direction}_{name}"] for name in COLUMNS]
        cells = [f"{100 * value:13.1f}" for value in values[:-1]] + [f"{values[-1]:13.0f}"]
        lines.append(f"{direction.replace('_', ' '):<16}" + "".join(cells))
    return "\n".join(lines)


def examples(
    audio: np.ndarray, text: np.ndarray, clips: Sequence[Clip], captions: Captions, count: int = 5
) -> str:
    """A few captions, evenly taken, each with a caption of the clip that is nearest to it."""
    lines = ["", "caption -> nearest clip"]
    places = [captions.first[place] for place in np.linspace(0, len(clips) - 1, count).astype(int)]
    for place in dict.fromkeys(places):
        nearest = int(np.argmax(audio @ text[place]))
        own = clips[nearest].captions[0]
        fits = (
            captions.clips[place] == nearest or captions.meanings[place] == clips[nearest].concept
        )
        lines.append(
            f"  {'+' if fits else '-'} {captions.texts[place]!r} -> {clips[nearest].id} {own!r}"
        )
    return "\n".join(lines)
