"""Fuzz tests of all readers: real files, mutated at random, are read in a limited child process.

    python tests/helpers/fuzz.py --total 10000                           all formats alike
    python tests/helpers/fuzz.py --cases 5000 --format mp3 --format wav

A case is a format and a number, from which its mutations follow. Allowed is a valid result, or a
ValueError of one line that names the file; not another error, a warning, a line on stderr by a C
library, a crash, more than CPU_SECONDS of processor time or MEMORY bytes of memory. The last line
printed has the numbers of cases and faults, and which took the most memory and time.
"""

import argparse
import contextlib
import io
import json
import os
import pickle
import re
import resource
import select
import subprocess
import sys
import tarfile
import tempfile
import time
import types
import unittest.mock
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audiotrain.features.audio import AudioWarning
from audiotrain.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
CPU_SECONDS = 10
MEMORY = 400_000_000  # bytes beyond what the child process has at the beginning of a case


class Format(NamedTuple):
    """`make` writes sound files to a folder and gives those to mutate; `read` reads one."""

    make: Callable[[Path], Iterable[Path]]
    read: Callable[[Path], object]


# ---- mutations

EXTREMES = (0, 1, -1, 2**7, 2**15, 2**31, 2**63, 2**7 - 1, 2**15 - 1, 2**31 - 1, 2**63 - 1, 1000)
NUMBERS = (
    *("0", "-1", "1e999", "-1e999", "nan", "1e-320", "9" * 400, "9" * 5000, "0x10", "999999999"),
    *(
        "2147483648",
        "18446744073709551616",
        "1e308",
        "",
        "1.5.2",
        "1_000",
        "\u0663",
        "true",
        "null",
    ),
)
WORDS = (
    *("null", "[]", "{}", "[" * 20_000, '{"a":' * 20_000, "\0", "\r", "\n", "\u2028", "\x0b", '"'),
    *(
        "'",
        ",",
        ";",
        "\t",
        "|",
        "#",
        ":",
        "/",
        "(",
        "\\",
        "\ufeff",
        "\ud800",
        "x" * 3000,
        "&a",
        "*a",
    ),
    *("(" * 5000, "C:maj", "- ", "!!python/object:os.system", "<<: ", "%", "../../x", "x999999999"),
)


def mutated(data: bytes, rng: np.random.Generator, is_text: bool) -> bytes:
    """The data after one to three random mutations."""
    for _ in range(rng.integers(1, 4)):
        choices = [*BINARY, *(TEXT * 3 if is_text else ())]
        data = choices[rng.integers(len(choices))](data, rng)
    return data


def position(data: bytes, rng: np.random.Generator) -> int:
    """Somewhere in the data, in two of three cases in its first bytes."""
    ends = (64, 512, len(data))
    return int(rng.integers(max(1, min(len(data), ends[rng.integers(3)]))))


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        if changed:
            changed[position(data, rng)] ^= 1 << rng.integers(8)
    return bytes(changed)


def truncate(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: position(data, rng)]


def block(data: bytes, rng: np.random.Generator) -> tuple[int, int]:
    first = position(data, rng)
    return first, min(len(data), first + int(2 ** rng.uniform(0, 12)))


def duplicate(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = block(data, rng)
    return data[:last] + data[first:last] * int(rng.integers(1, 5)) + data[last:]


def clear(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = block(data, rng)
    return data[:first] + bytes(last - first) + data[last:]


def delete(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = block(data, rng)
    return data[:first] + data[last:]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    first, last = block(data, rng)
    return data[:first] + rng.bytes(last - first) + data[last:]


def extreme(data: bytes, rng: np.random.Generator) -> bytes:
    size = int(2 ** rng.integers(4))
    first = position(data, rng)
    first -= first % (1 if rng.integers(2) else size)
    value = EXTREMES[rng.integers(len(EXTREMES))] % 256**size
    order = "little" if rng.integers(2) else "big"
    return data[:first] + value.to_bytes(size, order) + data[first + size :]


def number(data: bytes, rng: np.random.Generator) -> bytes:
    found = list(re.finditer(rb"\d[\d.eE+-]*", data))
    if not found:
        return data
    match = found[rng.integers(len(found))]
    return data[: match.start()] + some(NUMBERS, rng) + data[match.end() :]


def word(data: bytes, rng: np.random.Generator) -> bytes:
    found = list(re.finditer(rb"\"[^\"]*\"|[\w:./]+|[^\w\s]|\s", data))
    match = found[rng.integers(len(found))] if found else None
    first, last = match.span() if match else (0, 0)
    return data[:first] + some(WORDS, rng) + data[last if rng.integers(3) else first :]


def lines(data: bytes, rng: np.random.Generator) -> bytes:
    parts = data.split(b"\n")
    one, other = rng.integers(len(parts)), rng.integers(len(parts))
    parts[one] = parts[other] + b"\n" * int(rng.integers(2)) + parts[one] * int(rng.integers(2))
    return b"\n".join(parts)


def some(texts: tuple[str, ...], rng: np.random.Generator) -> bytes:
    return texts[rng.integers(len(texts))].encode("utf-8", "surrogatepass")


BINARY = (flip, truncate, duplicate, clear, delete, noise, extreme, extreme)
TEXT = (number, word, lines)
TEXT_SUFFIXES = (".lab", ".txt", ".jams", ".json", ".csv", ".tsv", ".jsonl", ".yaml")


# ---- formats


def tone(seconds: float = 0.4, rate: int = 22050, channels: int = 1) -> np.ndarray:
    """A chord of three tones (samples, channels)."""
    time = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * hertz * time) for hertz in (262, 330, 392)) / 4
    return np.repeat(sound[:, None], channels, axis=1).astype(np.float32)


def audio_maker(suffix: str, *variants: tuple[str, str, int, int]) -> Callable:
    """`make` of an audio format in (format, subtype, rate, channels)."""

    def make(folder: Path) -> list[Path]:
        import soundfile

        paths = []
        for kind, subtype, rate, channels in variants:
            paths.append(folder / f"{kind}-{subtype}-{rate}-{channels}{suffix}")
            sound = tone(rate=rate, channels=channels)
            soundfile.write(paths[-1], sound, rate, format=kind, subtype=subtype)
        return paths

    return make


def read_audio(path: Path) -> None:
    from audiotrain.features import audio

    found = audio.info(path)
    assert 0 < found.seconds < 1e12, found
    whole = audio.read(path, 22050, on_missing=audio.ignore)
    streamed = np.concatenate(list(audio.stream(path, 22050, 0.25, audio.ignore)))
    for samples in (whole, streamed, audio.read(path, 16000, 0.0, 0.1, audio.ignore)):
        assert samples.dtype == np.float32, samples.dtype
        assert samples.ndim == 1, samples.shape
        assert np.isfinite(samples).all()
    assert len(whole) == len(streamed), (len(whole), len(streamed))


def av_maker(suffix: str, *variants: tuple[str, str, dict[str, str]]) -> Callable:
    """`make` of a format that PyAV writes, in (container, codec, options)."""

    def make(folder: Path) -> list[Path]:
        import sound_files

        paths = []
        for number, (container, codec, options) in enumerate(variants):
            rate = 48000 if codec == "libopus" else 22050
            sound = tone(rate=rate, channels=1 + number % 2)
            paths.append(folder / f"{number}-{codec}{suffix}")
            paths[-1].write_bytes(sound_files.encoded(sound, rate, codec, container, options))
        return paths

    return make


def make_tags(folder: Path) -> list[Path]:
    """Recordings with a title and an artist, by libsndfile and by ffmpeg."""
    import av
    import soundfile

    title, artist = "Ça ira 日本", "Édith & Müller"
    paths = []
    for suffix in (".flac", ".ogg", ".wav", ".aiff"):
        paths.append(folder / f"x{suffix}")
        with soundfile.SoundFile(paths[-1], "w", 22050, 1) as file:
            file.title, file.artist = title, artist
            file.write(tone(0.1))
    frame = av.AudioFrame.from_ndarray(tone(rate=48000).T, format="fltp", layout="mono")
    frame.sample_rate = 48000
    for name, codec in (("y.mp3", "mp3"), ("y.m4a", "aac"), ("y.mka", "aac"), ("y.avi", "mp3")):
        paths.append(folder / name)
        with av.open(str(paths[-1]), "w") as container:
            container.metadata.update(title=title, artist=artist)
            stream = container.add_stream(codec, rate=48000, layout="mono")
            size = stream.codec_context.frame_size
            resampler = av.AudioResampler(stream.codec_context.format, "mono", 48000, size)
            for part in [*resampler.resample(frame), None]:
                container.mux(stream.encode(part))
    return paths


def read_tags(path: Path) -> None:
    from audiotrain.features.audio import TarMember
    from audiotrain.features.tags import LONGEST, read_tags

    tags = read_tags(path)
    assert read_tags(TarMember(path, path.name, 0, path.stat().st_size)) == tags
    for text in tags:
        assert len(text) <= LONGEST
        assert text.isprintable() or not any(one < " " or one in "\x7f\u2028" for one in text)


def make_midi(folder: Path) -> list[Path]:
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(initial_tempo=100)
    for program, is_drum in ((0, False), (30, False), (0, True)):
        instrument = pretty_midi.Instrument(program, is_drum)
        for step in range(12):
            note = pretty_midi.Note(90, 40 + step, step / 4, step / 4 + 0.2)
            instrument.notes.append(note)
        midi.instruments.append(instrument)
    midi.time_signature_changes.append(pretty_midi.TimeSignature(3, 4, 0.0))
    midi.key_signature_changes.append(pretty_midi.KeySignature(2, 0.0))
    midi.write(str(folder / "x.mid"))
    return [folder / "x.mid"]


def read_midi(path: Path) -> None:
    from audiotrain.datasets.synthesis import midi

    seconds = midi.midi_seconds(path)
    assert seconds is None or 0 <= seconds < float("inf"), seconds
    for part in midi.read_midi(path):
        assert part.notes


def make_sf2(folder: Path) -> list[Path]:
    import tiny_soundfont

    zones = [{43: 60 << 8, 48: 20, 54: 1}, {43: 127 << 8 | 61, 38: -3000, 51: 2, 8: 9000}]
    tiny_soundfont.make(folder / "x.sf2", zones, bank=0, program=0)
    return [folder / "x.sf2"]


def read_sf2(path: Path) -> None:
    from audiotrain.datasets.synthesis.soundfont import SoundFont

    font = SoundFont(path)
    notes = [(0.0, 0.5, 50, 90), (0.2, 0.5, 72, 127)]
    for is_drum in (False, True):
        assert np.isfinite(font.render(notes, 0, is_drum, 22050)).all()


LAB = "# a song\n0.0 1.5 N\n1.5\t3.25\tC:maj7/3\n3.25, 4, A:min(9)\n4 6 G:7(b9)\n6 8.5 F#:sus4/5\n"
AUDACITY = "0.000000\t1.500000\tC\n\\\t100.0\t200.0\n1.500000\t3.000000\tAm7\n3.0\t4.0\tF/A\n"
SALAMI = (
    "# title: A\n# artist: B\n# metre: 4/4\n# tonic: C\n\n0.0\tsilence\n"
    "1.5\tA, verse, | C:maj . G:7 . | (2/4) A:min | F:maj x |\n"
    "6.2\t| C:maj | G:maj | x3, (guitar)\n"
    "9.0\tB, chorus, | F:maj7/3 G:sus4 | * | &pause | C:maj |, voice)\n20.5\tend\n"
)
CHORD_CSV = 'start,end,chord\n0.0,1.5,"C:maj(9,11)"\n1.5,3.25,A:min\n3.25,4,N\n'
SEGMENTS = {
    "segments": [
        {"start": 0.0, "end": 1.5, "label": "C:maj", "confidence": 0.9},
        {"start": 1.5, "end": 3.25, "label": "A:min7", "confidence": 0.5},
    ]
}
JAMS = {
    "file_metadata": {"duration": 4.0, "title": "x"},
    "annotations": [
        {
            "namespace": "chord",
            "annotation_metadata": {"annotator": {"name": "me"}, "corpus": "c"},
            "data": [
                {"time": 0.0, "duration": 1.5, "value": "C:maj", "confidence": None},
                {"time": 1.5, "duration": 2.5, "value": "A:min7", "confidence": 0.5},
            ],
        },
        {
            "namespace": "chord_harte",
            "annotation_metadata": {"curator": {"name": "you"}},
            "data": {"time": [0.0, 1.0], "duration": [1.0, 1.0], "value": ["N", "G:7"]},
        },
    ],
}


def texts(**files: str) -> Callable:
    """`make` of text files; `__` in a name is its dot."""

    def make(folder: Path) -> list[Path]:
        paths = [folder / name.replace("__", ".") for name in files]
        for path, text in zip(paths, files.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    return make


def read_chords(path: Path) -> None:
    from audiotrain.datasets.chords import readers
    from audiotrain.music.segments import segments_to_frames

    selectors = (None, 1, "you") if path.suffix == ".jams" else (None,)
    for selector in selectors:
        annotation = readers.read(path, selector)
        bounds = [time for segment in annotation.segments for time in segment[:2]]
        assert bounds == sorted(bounds), bounds
        assert all(0 <= time < float("inf") for time in bounds[:-1]), bounds  # an instant is last
        one_line(annotation.problems)
        segments_to_frames(annotation.segments, 50, 0.1)


def one_line(problems: Iterable[str]) -> None:
    for text in problems:
        assert len(text.splitlines()) == 1, repr(text)[:300]
        assert len(text) < 2000, f"a problem of {len(text)} characters: {text[:300]}"


CAPTION_CSV = (
    "file,caption_1,caption_2,start,end,split,group\n"
    'a.wav,rain on a roof,"water, falling",0,0.2,train,g1\nb.wav,a dog,,0.1,,test,g2\n'
)
CAPTION_JSONL = "".join(
    json.dumps(row) + "\n"
    for row in (
        {"audio": "a.wav", "caption": ["rain", "a roof"], "start": 0.0, "end": 0.2},
        {"audio": "b.wav", "text": "a dog", "split": "train"},
    )
)
CLASS_CSV = "file,label,fold,start,duration\na.wav,dog,1,0,0.2\nb.wav,cat;dog,2,0.1,0.1\n"


def beside_audio(**files: str) -> Callable:
    """As `texts`, with a.wav and b.wav in the folder."""

    def make(folder: Path) -> list[Path]:
        import soundfile

        for name in ("a.wav", "b.wav"):
            soundfile.write(folder / name, tone(), 22050)
        return texts(**files)(folder)

    return make


def read_captions(path: Path) -> None:
    from audiotrain.datasets.captions import corpus, discovery

    found = corpus.check(discovery.discover(path.parent if path.stem == "a" else path))
    assert all(len(caption.splitlines()) == 1 for clip in found.items for caption in clip.captions)
    one_line(problem.text for problem in found.problems)
    corpus.report(found)


def read_classes(path: Path) -> None:
    from audiotrain.datasets import classes
    from audiotrain.datasets.captions import corpus

    found = corpus.check(classes.discover(path))
    one_line(problem.text for problem in found.problems)
    classes.report(found)


def read_chord_table(path: Path) -> None:
    from audiotrain.datasets.chords import corpus, discovery

    found = corpus.check(discovery.discover(path))
    one_line(problem.text for problem in found.problems)
    corpus.report(found)


def make_tar(folder: Path) -> list[Path]:
    import soundfile

    with tarfile.open(folder / "x.tar", "w") as tar:
        for name in ("one", "two"):
            sound = io.BytesIO()
            soundfile.write(sound, tone(0.1), 22050, format="WAV")
            for suffix, data in (("wav", sound.getvalue()), ("json", b'{"caption": "rain"}')):
                entry = tarfile.TarInfo(f"clips/{name}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return [folder / "x.tar"]


def read_tar(path: Path) -> None:
    from audiotrain.datasets.captions import corpus, discovery
    from audiotrain.features.audio import AudioError

    found = corpus.check(discovery.discover(path))
    one_line(problem.text for problem in found.problems)
    for clip in found.items:
        try:
            assert np.isfinite(clip.read(22050, on_missing=lambda *missing: None)).all()
        except AudioError as error:
            one_line([str(error)])


def corpus_of_two():
    from audiotrain.datasets.items import Clip, Corpus

    return Corpus(Path("x"), [Clip(name, None, ("x",), group=name) for name in "abcd"], [])


def make_split(folder: Path) -> list[Path]:
    from audiotrain.datasets.splits import split
    from audiotrain.recipes.common.split import write_split

    split(corpus_of_two(), path=folder / "groups.json")
    write_split(folder / "split.json", {"train": ["a", "b"], "valid": ["c"], "test": ["d"]})
    return [folder / "groups.json", folder / "split.json"]


def read_split(path: Path) -> None:
    from audiotrain.datasets import splits
    from audiotrain.recipes.common import split

    if path.stem == "split":
        split.read_split(path)
    else:
        parts = splits.split(corpus_of_two(), path=path)
        assert sorted(item.id for part in parts.values() for item in part) == list("abcd")


def small_recognizer():
    from audiotrain.models.chords.model import ChordModelSettings, FrameChordModel
    from audiotrain.recipes.chords.predictor import Recognizer
    from audiotrain.recipes.chords.songs import FeatureSettings

    sizes = ChordModelSettings(width=36, blocks=1, pools=1, hidden=24)
    features = FeatureSettings(hop=4096, bins=72, bins_per_octave=12)
    model = FrameChordModel(features.bins, sizes, features.bins_per_octave)
    return Recognizer(model, features, 16, 2.0, np.zeros(32))


def description(recognizer) -> dict:
    from audiotrain.recipes.chords import predictor

    sizes = recognizer.model.trunk.settings
    return predictor.describe(sizes, recognizer.settings, recognizer.window)


def make_chord_checkpoint(folder: Path) -> list[Path]:
    import mlx.nn as nn

    from audiotrain.recipes.chords import predictor
    from audiotrain.train import checkpoint
    from audiotrain.utils.arrays import arrays_of

    recognizer, holder = small_recognizer(), nn.Module()
    holder.model = recognizer.model
    config = {"recognizer": description(recognizer)}
    last = checkpoint.save(folder / "run", {"model": arrays_of(holder)}, {"config": config})
    predictor.write_decoding(recognizer, folder / "decoding.json")
    return [last / "state.json", last / "model.safetensors", folder / "decoding.json"]


def read_chord_checkpoint(path: Path) -> None:
    from audiotrain.recipes.chords.predictor import Recognizer

    folder = path.parent if path.stem == "decoding" else path.parent.parent
    recognizer = Recognizer.from_checkpoint(folder / "run")
    prediction = recognizer.predict(tone(1.0, recognizer.settings.rate)[:, 0])
    assert all(np.isfinite(prediction.confidences)) or path.suffix == ".safetensors"


def make_model(folder: Path) -> list[Path]:
    from audiotrain.recipes.chords import predictor
    from audiotrain.recipes.common import exported
    from audiotrain.utils.arrays import arrays_of

    recognizer = small_recognizer()
    content = {
        "recipe": "chords",
        **description(recognizer),
        "vocabulary": predictor.vocabulary(),
        "decoding": predictor.decoding_of(recognizer),
        "trained_on": {"data": "songs", "songs": {"train": ["a", "b"], "test": ["c"]}},
    }
    exported.write_model(folder / "x", arrays_of(recognizer.model), content, lambda found: "")
    return [folder / "x" / "model.json", folder / "x" / "model.safetensors"]


def read_model(path: Path) -> None:
    from audiotrain.recipes.chords.predictor import Recognizer
    from audiotrain.recipes.common import split

    recognizer = Recognizer.from_checkpoint(path.parent)
    recognizer.predict(tone(1.0, recognizer.settings.rate)[:, 0])
    with contextlib.redirect_stderr(io.StringIO()):
        split.warn_if_trained_on([path.parent], corpus_of_two(), "songs")


def make_clap(folder: Path) -> list[Path]:
    import clap_folders

    clap_folders.save_model(folder)
    return sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))


def read_clap(path: Path) -> None:
    from audiotrain.models.clap import CLAP
    from audiotrain.models.clap.feature_extraction import ClapFeatureSettings
    from audiotrain.models.clap.tokenizer import Tokenizer

    model = CLAP.from_pretrained(path.parent)
    tokenizer = Tokenizer.read(path.parent, min(77, model.config.text_config.max_tokens))
    tokenizer.check(model.config.text_config.vocab_size)
    tokenizer(["rain on a roof"])
    ClapFeatureSettings.read(path.parent).check(model.config.audio_config, str(path))


def make_embeddings(folder: Path) -> list[Path]:
    import clap_folders

    clap_folders.save_model(folder / "clap")
    for number, name in enumerate(("a", "b", "c")):
        clap_folders.write_clip(folder / "sounds" / f"{name}.wav", 1, 16000, number)
    (folder / "sounds" / "c.wav").write_bytes(b"RIFF")  # its error is kept
    read_embeddings(folder / "embeddings.sqlite")
    return [folder / "embeddings.sqlite"]


def read_embeddings(path: Path) -> None:
    from audiotrain.datasets.paths import recordings
    from audiotrain.recipes.clap.embedder import Embedder
    from audiotrain.recipes.clap.embedding_store import EmbeddingStore

    embedder = Embedder.from_folder(path.parent / "clap")
    store, bar = EmbeddingStore(path.parent, embedder), io.StringIO()
    with contextlib.closing(store), contextlib.redirect_stderr(bar):
        found = store.embed(recordings(path.parent / "sounds", []), "embedding")
    assert len(found.clips) == 2
    assert all(spans.embeddings.shape == (1, embedder.width) for spans in found.spans)


class Storage:
    """Numbers of a tensor, which torch.save writes beside the pickle."""


class Tensor:
    """A tensor (3, 4), pickled as PyTorch does."""

    def __reduce__(self):
        import torch

        return torch._utils._rebuild_tensor_v2, (Storage(), 0, (3, 4), (4, 1), False, None)


class AsTorch(pickle.Pickler):
    def persistent_id(self, value):
        import torch

        is_storage = isinstance(value, Storage)
        return ("storage", torch.FloatStorage, "0", "cpu", 12) if is_storage else None


def make_bin(folder: Path) -> list[Path]:
    """A pytorch_model.bin, written with a stand-in for PyTorch."""
    content = io.BytesIO()
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch._utils = utils
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    exec("def _rebuild_tensor_v2(): pass", vars(utils))
    with unittest.mock.patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}):
        AsTorch(content, 2).dump({"weight": Tensor(), "bias": Tensor()})
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", content.getvalue())
        archive.writestr("archive/data/0", np.arange(12, dtype="<f4").tobytes())
    return [folder / "pytorch_model.bin"]


def read_bin(path: Path) -> None:
    from audiotrain.models.clap import torch_pickle

    assert all(array.size < 1e6 for array in torch_pickle.read_bin(path).values())


def make_index(folder: Path) -> list[Path]:
    from audiotrain.recipes.clap.index import Index

    rows = np.eye(3, 8, dtype=np.float32)
    times = np.arange(3, dtype=np.float32)
    index = Index(rows, np.array([0, 0, 1], np.int32), times, times + 1, ["a.wav", "b.wav"], "x")
    paths = [folder / "x.safetensors", folder / "x.npz"]
    for path in paths:
        index.write(path)
    return paths


def read_index(path: Path) -> None:
    from audiotrain.recipes.clap.index import Index

    index = Index.read(path)
    assert len(index.clip) == len(index.start) == len(index.embeddings)
    assert all(isinstance(name, str) for name in index.ids)


def small_module():
    import mlx.nn as nn

    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


def make_lora(folder: Path) -> list[Path]:
    from audiotrain.models import lora

    module = small_module()
    lora.add_lora(module, 2, ["layers*"])
    lora.save_lora(module, folder / "x.safetensors")
    return [folder / "x.safetensors"]


def read_lora(path: Path) -> None:
    from audiotrain.models import lora

    lora.load_lora(small_module(), path)


def make_folds(folder: Path) -> list[Path]:
    from audiotrain.recipes.common.ensemble import EnsembleSpec
    from audiotrain.train import crossval

    (folder / "folds.json").write_text(json.dumps({"folds": [["a", "b"], ["c"]]}))
    oof = folder / "oof"
    oof.mkdir()
    for fold, names in enumerate((("a", "b"), ("c",))):
        files = {name: f"{name}.npz" for name in names}
        (oof / f"{fold}.json").write_text(json.dumps(files))
        for file in files.values():
            crossval._write_npz(oof / file, {"logits": np.ones((4, 3), np.float32)})
    EnsembleSpec(((Path("/runs/a"),), (Path("/runs/b"),)), (0.5, 0.5), "mean").write(folder)
    return [folder / "folds.json", folder / "ensemble.json", oof / "0.json", oof / "a.npz"]


def read_folds(path: Path) -> None:
    from audiotrain.recipes.common.ensemble import EnsembleSpec
    from audiotrain.train import crossval

    if path.stem == "ensemble":
        EnsembleSpec.read(path.parent, "chords", ("mean", "stack"))
        return
    folder = path.parent if path.stem == "folds" else path.parent.parent
    for name, arrays in crossval.read_ragged(folder):
        assert isinstance(name, str)
        assert all(array.size < 1e6 for array in arrays.values())


SETTINGS = (
    "version: 2\ninclude: other.yaml\nseed: 3\nsteps: 40\nbatch_size: &b 4\nwindow: 16\n"
    "features: {hop: 4096, bins: 72}\nmodel:\n  width: 36\n  blocks: 1\n  pools: 1\noptimization:\n"
    "  learning_rate: 1e-3\ndata: 'x'\nvalidations: *b\n"
)


def read_settings(path: Path) -> None:
    from audiotrain import config
    from audiotrain.recipes.chords.settings import TrainSettings

    try:
        config.load(TrainSettings, ["--config", str(path.parent / "x.yaml")])
    except UserError as error:  # a line a mistake: the first must name a file
        raise UserError(str(error).splitlines()[0]) from None


def make_run(folder: Path) -> list[Path]:
    import run_folders

    run = run_folders.chords_run(folder / "run")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    return sorted(path for path in run.iterdir() if path.suffix != ".wav")


def read_run(path: Path) -> None:
    from audiotrain.evaluation.report import html, run_reader

    run = run_reader.read_run(path.parent)
    one_line(run.problems)
    run_reader.headlines(run)
    assert "<html" in html.page([run])


def read_submission(path: Path) -> None:
    from audiotrain.train.submission import read_sample

    header, ids = read_sample(path)
    assert len(header) > 1
    assert ids


WAV = (
    *(("WAV", "PCM_16", 22050, 1), ("WAV", "PCM_U8", 8000, 2), ("WAV", "FLOAT", 44100, 2)),
    *(("WAV", "DOUBLE", 22050, 1), ("WAV", "ULAW", 8000, 1), ("WAVEX", "PCM_24", 48000, 6)),
    *(("WAV", "IMA_ADPCM", 22050, 1), ("RF64", "PCM_16", 22050, 1), ("W64", "PCM_16", 22050, 1)),
)
FORMATS = {
    "wav": Format(audio_maker(".wav", *WAV), read_audio),
    "flac": Format(
        audio_maker(".flac", ("FLAC", "PCM_16", 22050, 1), ("FLAC", "PCM_24", 44100, 2)), read_audio
    ),
    "ogg": Format(
        audio_maker(
            ".ogg",
            ("OGG", "VORBIS", 22050, 1),
            ("OGG", "VORBIS", 44100, 2),
            ("OGG", "OPUS", 48000, 1),
        ),
        read_audio,
    ),
    "mp3": Format(
        audio_maker(
            ".mp3", ("MP3", "MPEG_LAYER_III", 22050, 1), ("MP3", "MPEG_LAYER_III", 44100, 2)
        ),
        read_audio,
    ),
    "aiff": Format(
        audio_maker(
            ".aiff",
            ("AIFF", "PCM_16", 22050, 1),
            ("AU", "PCM_16", 22050, 2),
            ("CAF", "ALAC_16", 22050, 1),
        ),
        read_audio,
    ),
    "m4a": Format(
        av_maker(
            ".m4a",
            ("ipod", "aac", {}),
            ("ipod", "aac", {"movflags": "faststart"}),
            ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
            ("ipod", "alac", {}),
            ("mov", "pcm_s16le", {}),
        ),
        read_audio,
    ),
    "aac": Format(av_maker(".aac", ("adts", "aac", {}), ("adts", "aac", {})), read_audio),
    "opus": Format(av_maker(".opus", ("ogg", "libopus", {}), ("ogg", "flac", {})), read_audio),
    "wma": Format(av_maker(".wma", ("asf", "wmav2", {}), ("asf", "wmav1", {})), read_audio),
    "mkv": Format(
        av_maker(
            ".mkv",
            ("matroska", "aac", {}),
            ("webm", "libopus", {}),
            ("matroska", "flac", {}),
            ("avi", "libmp3lame", {}),
        ),
        read_audio,
    ),
    "tags": Format(make_tags, read_tags),
    "midi": Format(make_midi, read_midi),
    "sf2": Format(make_sf2, read_sf2),
    "lab": Format(texts(x__lab=LAB, y__txt=AUDACITY), read_chords),
    "salami": Format(texts(salami_chords__txt=SALAMI), read_chords),
    "jams": Format(texts(x__jams=json.dumps(JAMS)), read_chords),
    "json": Format(texts(x__json=json.dumps(SEGMENTS, indent=1)), read_chords),
    "csv": Format(texts(x__csv=CHORD_CSV, y__tsv=AUDACITY), read_chords),
    "chord-table": Format(
        beside_audio(table__csv="audio,chord,start,end\na.wav,C:maj,0,0.2\nb.wav,Am,0.1,0.3\n"),
        read_chord_table,
    ),
    "captions": Format(
        beside_audio(
            x__csv=CAPTION_CSV, y__jsonl=CAPTION_JSONL, z__tsv=CAPTION_CSV.replace(",", "\t")
        ),
        read_captions,
    ),
    "sidecars": Format(
        beside_audio(a__txt="rain on a roof\nwater\n", a__json='{"captions": ["rain", "water"]}'),
        read_captions,
    ),
    "classes": Format(beside_audio(meta__csv=CLASS_CSV), read_classes),
    "tar": Format(make_tar, read_tar),
    "split": Format(make_split, read_split),
    "checkpoint": Format(make_chord_checkpoint, read_chord_checkpoint),
    "model": Format(make_model, read_model),
    "clap": Format(make_clap, read_clap),
    "embeddings": Format(make_embeddings, read_embeddings),
    "bin": Format(make_bin, read_bin),
    "index": Format(make_index, read_index),
    "lora": Format(make_lora, read_lora),
    "folds": Format(make_folds, read_folds),
    "settings": Format(texts(x__yaml=SETTINGS, other__yaml="workers: 0\n"), read_settings),
    "run": Format(make_run, read_run),
    "submission": Format(texts(sample__csv="id,a,b\n1,0.5,0.5\n2,0.5,0.5\n"), read_submission),
}


# ---- the child process


class Bench:
    """The sound files of a format in a folder, of which one is mutated for each case."""

    def __init__(self, name: str, folder: Path):
        self.format = FORMATS[name]
        self.folder = folder / name
        self.folder.mkdir()
        self.key = zlib.crc32(name.encode())
        self.sound = {path: path.read_bytes() for path in self.format.make(self.folder)}
        for path in self.sound:  # also loads what a first call loads
            self.format.read(path)

    def case(self, number: int) -> tuple[Path, bytes]:
        """The file of a case and its mutated content."""
        rng = np.random.default_rng((self.key, number))
        path = list(self.sound)[rng.integers(len(self.sound))]
        return path, mutated(self.sound[path], rng, path.suffix in TEXT_SUFFIXES)

    def outcome(self, number: int) -> str:
        """ "ok", "refused" or what went wrong."""
        path, data = self.case(number)
        path.write_bytes(data)
        try:
            return outcome_of(self.format.read, path, self.folder)
        finally:
            path.write_bytes(self.sound[path])


def outcome_of(read: Callable[[Path], object], path: Path, folder: Path) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AudioWarning)  # a line that says what is missing
            read(path)
    except UserError as error:
        text = str(error)
        if len(text.splitlines()) != 1 or len(text) > 2000:
            return f"not one line: {type(error).__name__}: {text[:300]!r}{raised_at(error)}"
        if not any(name in text for name in (path.name, str(folder))):
            return f"does not name {path.name}: {text[:300]}{raised_at(error)}"
        return "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]!r}{raised_at(error)}"
    return "ok"


def raised_at(error: BaseException) -> str:
    """The innermost place in the package, and the innermost of all."""
    places, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append((code.co_filename, f"{Path(code.co_filename).name}:{trace.tb_lineno}"))
        trace = trace.tb_next
    inside = [place for file, place in places if "/audiotrain/" in file]
    return f" at {' '.join([*inside[-1:], *[place for _, place in places[-1:]]])}"


READY = "ready"  # the answer once a format's sound files are made and read


def child() -> None:
    """Answers lines of (format, number) on stdin by lines of JSON on stdout."""
    import audiotrain  # noqa: F401 (before anything imports MLX)

    answers = os.fdopen(os.dup(1), "w")
    with answers, tempfile.TemporaryFile() as noise, tempfile.TemporaryDirectory() as folder:
        os.dup2(noise.fileno(), 1)
        benches: dict[str, Bench] = {}
        original = os.dup(2)
        for line in sys.stdin:
            name, number = line.split()
            if name not in benches:
                benches[name] = Bench(name, Path(folder))
                print(json.dumps(READY), file=answers, flush=True)
            noise.truncate(0)
            noise.seek(0)
            os.dup2(noise.fileno(), 2)
            set_limits()
            used = Use()
            result = benches[name].outcome(int(number))
            seconds, size = used.since()
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
            os.dup2(original, 2)
            noise.seek(0)
            if said := noise.read(500).decode(errors="replace"):
                result = f"prints {said!r}"
            print(json.dumps([result, seconds, size]), file=answers, flush=True)


class Use:
    """Processor time in seconds and memory in bytes that this process takes from now on."""

    def __init__(self) -> None:
        self.begun = time.process_time()
        with contextlib.suppress(OSError):  # Linux: the highest memory is the present one
            Path("/proc/self/clear_refs").write_text("5")
        self.size = self.highest()

    def since(self) -> tuple[float, int]:
        return time.process_time() - self.begun, self.highest() - self.size

    @staticmethod
    def highest() -> int:
        try:
            found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
            return int(found[1]) * 1024 if found else 0
        except OSError:  # macOS counts it in bytes
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def set_limits() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, -1))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, -1))


WARNINGS = ("-W", "error")


class Reader:
    """A child process, which is started again when a case has ended it. `seconds` and `size` are
    the processor time and the bytes of memory that the last case took, where it did not."""

    def __init__(self) -> None:
        self.seconds, self.size = 0.0, 0
        self.process: subprocess.Popen | None = None
        self.begun: set[str] = set()

    def outcome(self, name: str, number: int) -> str:
        self.seconds, self.size = 0.0, 0
        if self.process is None:
            self.begun.clear()
            command = [sys.executable, *WARNINGS, __file__, "--child"]
            pipe = subprocess.PIPE
            environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, bufsize=0, env=environment, cwd=ROOT
            )
        self.process.stdin.write(f"{name} {number}\n".encode())
        if name not in self.begun:
            if self.process.stdout.readline() != f"{json.dumps(READY)}\n".encode():
                raise RuntimeError(f"{name}: its sound files cannot be made or read")
            self.begun.add(name)
        ready, _, _ = select.select([self.process.stdout], [], [], 60 + 6 * CPU_SECONDS)
        answer = self.process.stdout.readline() if ready else b""
        if answer:
            result, self.seconds, self.size = json.loads(answer)
            return result
        self.process.kill()
        code = self.process.wait()
        self.close()
        return f"ended the process: {code}" if ready else "takes more than two minutes"

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
            self.process = None


class Tally:
    """What came of the cases of all formats."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.most = (0, "none")  # bytes of memory, and of which case
        self.slowest = (0.0, "none")  # seconds of processor time

    def add(self, name: str, number: int, kind: str, reader: Reader) -> None:
        self.counts[kind] += 1
        self.most = max(self.most, (reader.size, f"{name} {number}"))
        self.slowest = max(self.slowest, (reader.seconds, f"{name} {number}"))

    def line(self, formats: int, seconds: float) -> str:
        counts, (size, largest), (slow, slowest) = self.counts, self.most, self.slowest
        return (
            f"{counts.total()} mutated files of {formats} formats: {counts['failed']} faults, "
            f"{counts['refused']} refused, {counts['ok']} read; largest memory "
            f"{size / 2**20:.0f} MiB ({largest}), slowest {slow:.1f} s ({slowest}); "
            f"{seconds:.0f} s in all"
        )


def run_format(name: str, numbers: Iterable[int], tally: Tally, keep: Path | None) -> None:
    """Read the cases of a format, print what fails, once a kind, and a line of counts."""
    counts: Counter[str] = Counter()
    kinds: dict[str, list[int]] = {}
    reader = Reader()
    with contextlib.closing(reader):
        for number in numbers:
            outcome = reader.outcome(name, number)
            good = outcome in ("ok", "refused")
            kind = outcome if good else "failed"
            counts[kind] += 1
            tally.add(name, number, kind, reader)
            if good:
                continue
            place = outcome.rpartition(" at ")[2] if " at " in outcome else outcome[:40]
            kind = f"{outcome.split(':')[0]} {re.sub('[0-9]{3,}', '_', place)}"
            if kind not in kinds:
                print(f"  {name} {number}: {outcome}", flush=True)
            kinds.setdefault(kind, []).append(number)
            if keep:
                with tempfile.TemporaryDirectory() as folder:
                    path, data = Bench(name, Path(folder)).case(number)
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name}-{number}-{path.name}").write_bytes(data)
    print(f"{name}: {dict(counts)} {[(len(v), v[:3]) for v in kinds.values()]}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000, help="cases of each format")
    parser.add_argument("--total", type=int, help="cases of all formats together, at least")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--format", action="append", choices=list(FORMATS), help="default: all")
    parser.add_argument("--keep", type=Path, help="folder for the files of cases that fail")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child()
        return 0
    names = options.format or list(FORMATS)
    cases = -(-options.total // len(names)) if options.total else options.cases
    begun, tally = time.monotonic(), Tally()
    for name in names:
        run_format(name, range(options.first, options.first + cases), tally, options.keep)
    print(tally.line(len(names), time.monotonic() - begun))
    return 1 if tally.counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
