"""Recordings of which a part cannot be decoded: a line for each, also from caches; or refused."""

import numpy as np
import pytest
from sound_files import cut, sndfile

from audiotrain.datasets.chords.items import Item
from audiotrain.datasets.items import Clip
from audiotrain.datasets.summary import ProblemLog
from audiotrain.features import audio
from audiotrain.features.cache import FeatureCache
from audiotrain.models.clap.feature_extraction import ClapFeatures, ClapFeatureSettings
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords.songs import FeatureSettings, SongLibrary, load_renderings
from audiotrain.recipes.clap.dataset import CaptionedClips, read_through
from audiotrain.recipes.clap.windows import read_windows
from audiotrain.recipes.classify.features import ClipFeatures, InputSettings
from audiotrain.recipes.common import split
from audiotrain.recipes.common.split import Incomplete
from audiotrain.train.distributed.ranks import SingleProcess

LINE = "0.6 s at the end can't be decoded, left out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A whole recording, one cut at 0.7 of 2 s, and none."""
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "whole.wav").write_bytes(sndfile("WAV", seconds=2.0))
    (folder / "part.wav").write_bytes(cut(sndfile("WAV", seconds=2.0), 0.7))
    (folder / "none.wav").write_bytes(b"RIFF")
    return folder


def check(folder, results):
    """Of whole, part and none."""
    assert not isinstance(results[0], (str, Incomplete))
    assert isinstance(results[1], Incomplete)
    assert results[1].line == f"{folder / 'part.wav'}: {LINE}"
    assert results[2].startswith(f"{folder / 'none.wav'}: not readable as audio")


NAMES = ("whole.wav", "part.wav", "none.wav")


@pytest.mark.parametrize("span", [{}, {"start": 0.5}])
def test_songs(folder, tmp_path, span):
    settings = FeatureSettings(hop=4096, bins=72, bins_per_octave=12)
    items = [Item(name, folder / name, (Segment(0.0, 9.0, "C:maj"),), **span) for name in NAMES]
    for _ in range(2):  # the second time from the cache
        library = SongLibrary(settings, tmp_path / "cache")
        wanted = [(item, (0,)) for item in items]
        check(folder, load_renderings(library, wanted, workers=2))


def test_clips_of_a_classifier(folder, tmp_path):
    clips = [Clip(name, folder / name, (), labels=("x",)) for name in NAMES]
    for _ in range(2):
        check(folder, ClipFeatures(InputSettings(), tmp_path / "cache", 2).extract(clips))


@pytest.mark.parametrize("seconds", [10.0, 1.0])
def test_captioned_clips(folder, tmp_path, seconds):
    """Shorter than the input, whose features are kept, and longer."""
    clips = [Clip(name, folder / name, ("x",)) for name in NAMES]
    settings = ClapFeatureSettings(rate=16000, hop=320, fmax=8000, seconds=seconds)
    for _ in range(2):
        mels = FeatureCache(tmp_path / "mels", np.float16)
        samples = CaptionedClips(clips, None, ClapFeatures(settings), None, mels)
        check(folder, read_through(samples, tmp_path, SingleProcess()))


def test_windows_end_with_what_is_missing(folder):
    clips = [Clip("part", folder / "part.wav", ())]
    events = list(read_windows(clips, ClapFeatures(ClapFeatureSettings()), 1, 4))
    assert [event.missing for event in events if event.window is None] == [LINE]


@pytest.mark.parametrize("strict", [False, True])
def test_items_are_kept_unless_strict(tmp_path, capsys, strict):
    results = ["a", Incomplete(2, f"part.wav: {LINE}"), 3]
    items, problems, incomplete = split.readable(results, strict)
    if strict:
        assert (items, incomplete) == ([3], [])
        assert problems == ["a", "part.wav: 0.6 s at the end can't be decoded"]
        with pytest.raises(ValueError, match="1 of 1 song can't be read: part.wav: 0.6 s at"):
            split.keep_readable(results[1:2], "songs", ProblemLog(tmp_path), strict)
        return
    assert (items, problems, incomplete) == ([2, 3], ["a"], [f"part.wav: {LINE}"])
    assert split.keep_readable(results[1:], "songs", ProblemLog(tmp_path)) == [2, 3]
    out = capsys.readouterr().out
    assert out == f"1 of 2 songs can't be decoded whole:\n  part.wav: {LINE}\n"
    assert (tmp_path / "problems.txt").read_text().endswith(f"part.wav: {LINE}\n")


def test_what_is_missing_of_spans_is_added_up():
    found = audio.Gathered()
    for missing in (audio.Missing(0.25, 3.0), audio.Missing(1.0, 9.0, 0.5)):
        found("x.mp3", missing)
    assert (
        found.text
        == "1.2 s at 3.0 s (silence instead) and 0.5 s at the end (left out) can't be decoded"
    )


@pytest.mark.parametrize("text", ["", LINE, "ümlaut"])
def test_a_cache_keeps_texts(tmp_path, text):
    for dtype in (np.float16, np.float32):
        cache = FeatureCache(tmp_path, dtype)
        assert cache.text("source", {"a": 1}, lambda: text) == text
        assert cache.text("source", {"a": 1}, lambda: "other") == text
