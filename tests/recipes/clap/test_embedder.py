"""The embedder: windows that cover, the same bits in any batch, and Hugging Face's numbers."""

import subprocess
import sys
import textwrap
import threading

import mlx.core as mx
import numpy as np
import pytest
import soundfile
from clap_folders import CAPTIONS, save_model, sound, write_clip
from hypothesis import given
from hypothesis import strategies as st

from audiotrain.datasets.items import Clip
from audiotrain.datasets.synthesis.sound_scenes import random_scene
from audiotrain.features import audio
from audiotrain.features.audio import AudioError
from audiotrain.models.clap.feature_extraction import ClapFeatures
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.windows import cut as cut_blocks
from audiotrain.recipes.clap.windows import read_windows, windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("clap") / "model")


@pytest.fixture(scope="module")
def embedder(folder):
    return Embedder.from_folder(folder)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Nine files of 0.05 to 33 seconds, at rates of 8 to 192 kHz, of 1 to 6 channels."""
    place = tmp_path_factory.mktemp("recordings")
    kinds = [
        ("a.wav", 0.05, 48000, 1),
        ("b.wav", 3, 8000, 1),
        ("c.flac", 10, 44100, 2),
        ("d.ogg", 33, 22050, 2),
        ("e.wav", 12, 48000, 6),
        ("f.wav", 10.5, 192000, 1),
        ("g.mp3", 21, 44100, 1),
        ("h.wav", 1, 16000, 1),
        ("i.flac", 10, 48000, 1),
    ]
    for number, (name, seconds, rate, channels) in enumerate(kinds):
        samples = sound(seconds, rate, number)
        shift = rate // 100
        many = np.stack([np.roll(samples, shift * channel) for channel in range(channels)], 1)
        subtype = "FLOAT" if name.endswith("wav") else None
        with soundfile.SoundFile(place / name, "w", rate, channels, subtype) as file:
            for first in range(0, len(many), rate):
                file.write(many[first : first + rate])
    return sorted(place.iterdir())


# ---- windows


@given(
    count=st.integers(1, 150),
    size=st.integers(1, 40),
    margin=st.integers(0, 9),
    wrong=st.sampled_from([0, 0, 1, -1, 6, -6, 70, -70]),
    cuts=st.lists(st.floats(0, 1), max_size=4),
)
def test_windows_cover_whatever_the_header_said(count, size, margin, wrong, cuts):
    samples = np.arange(count)
    blocks = np.split(samples, sorted(int(place * count) for place in cuts))
    found = list(cut_blocks(blocks, max(0, count + wrong), size, margin))
    for start, window in found:
        np.testing.assert_array_equal(window, np.arange(start, start + min(size, count)))
    starts = [start for start, _ in found]
    assert starts == sorted(set(starts))
    assert starts[-1] == max(0, count - size)
    missed = count - len(set().union(*(range(s, s + len(w)) for s, w in found)))
    assert missed <= margin
    if not wrong:
        even = np.linspace(0, max(0, count - size), -(-count // size)).round()
        assert starts == even.astype(int).tolist()


def test_windows_are_those_of_the_front_end(embedder, recordings):
    features = embedder.features
    for path in recordings:
        whole = features.windows(audio.read(path, 48000))
        found = list(windows(Clip("x", path, ()), features))
        assert abs(len(found) - len(whole)) <= (path.suffix == ".mp3")
        if path.suffix != ".mp3":  # whose header counts its padding
            np.testing.assert_allclose(np.stack([w.mel for w in found]), whole, atol=1e-3)
            assert found[-1].end == pytest.approx(audio.info(path).seconds, abs=1e-4)
        assert found[0].start == 0


def test_a_span_is_embedded_as_the_file_cut_out(embedder, tmp_path):
    samples = sound(30)
    audio.write(tmp_path / "whole.wav", samples, 48000)
    audio.write(tmp_path / "span.wav", samples[3 * 48000 : 27 * 48000], 48000)
    span = Clip("span", tmp_path / "whole.wav", (), start=3, end=27)
    one, other = embedder.audio([span, tmp_path / "span.wav"], "embedding")
    assert_same(one, other)
    blocks = list(span.stream(44100, 10))
    assert [len(block) for block in blocks] == [441000, 441000, 4 * 44100]


def test_threads_end_with_their_consumer(embedder, recordings):
    clips = [Clip(path.name, path, ()) for path in recordings]
    before = threading.active_count()
    events = read_windows(clips, embedder.features, 3, 1)
    assert next(events).clip in range(3)
    assert threading.active_count() == before + 3
    events.close()
    assert threading.active_count() == before


def test_what_is_not_the_audios_fault_is_raised(embedder, recordings):
    class Broken(ClapFeatures):
        def fit(self, samples):
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        list(read_windows([Clip("x", recordings[0], ())], Broken(embedder.features.settings), 2, 1))


# ---- embeddings


def assert_same(found, expected):
    """To the bit, where this machine's matrix products give equal rows for equal rows: those of
    OpenBLAS by AVX2 do not."""
    rows = np.array(mx.ones((12, 1)) * mx.random.normal((96,)) @ mx.random.normal((96, 96)))
    if (rows == rows[0]).all():
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_same_file_gives_the_same_bits_in_any_batch(embedder, folder, recordings):
    found = embedder.audio(recordings, "embedding")
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.ptp(found, axis=0).max() > 0.3  # they are not all one
    for order in (range(8, -1, -1), [4, 0, 4], [7]):
        again = embedder.audio([recordings[row] for row in order], "embedding")
        assert_same(again, found[list(order)])
    alone = Embedder.from_folder(folder, batch_size=1, workers=1)
    np.testing.assert_allclose(alone.audio(recordings, "embedding"), found, atol=1e-6)


def test_the_same_caption_gives_the_same_bits_in_any_batch(embedder):
    captions = [*CAPTIONS, "rain " * 2000, "Donnergrollen über Zürich: 雷と雨", "x"] * 3
    found = embedder.text(captions)
    assert np.isfinite(found).all()
    assert_same(found[:7], found[7:14])
    order = np.random.default_rng(0).permutation(len(captions))
    assert_same(embedder.text([captions[n] for n in order]), found[order])
    assert_same(embedder.text([captions[2]])[0], found[2])


def test_batches_are_cut_into_parts_of_one_size(folder, recordings, cut, monkeypatch):
    """Products of other shapes may have other bits."""
    if mx.default_device() != mx.Device(mx.cpu):
        pytest.skip("a GPU is not cut")
    cut(3)
    embedder = Embedder.from_folder(folder, batch_size=4, workers=1)
    sizes = []
    for name in ("_embed_audio", "_embed_text"):
        embed = getattr(embedder, name)
        monkeypatch.setattr(
            embedder, name, lambda x, *rest, embed=embed: sizes.append(len(x)) or embed(x, *rest)
        )
    found, texts = embedder.audio(recordings, "embedding"), embedder.text(CAPTIONS)
    assert set(sizes) == {6, 9}
    assert_same(embedder.audio(recordings[::-1], "embedding"), found[::-1])
    assert_same(embedder.text(CAPTIONS[::-1]), texts[::-1])


def test_a_composed_scene_is_embedded(embedder):
    scene = random_scene(1)
    clip = Clip("scene", scene, scene.captions)
    alone, twice = embedder.audio([clip], "embedding"), embedder.audio([clip, clip], "embedding")
    np.testing.assert_allclose(alone, twice[:1], atol=1e-6)


@pytest.mark.parametrize("fusion", [False, True])
def test_embeddings_are_those_of_transformers(shared_data, tmp_path, fusion):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: audiotrain[reference]")
    transformers = pytest.importorskip("transformers", reason="audiotrain[reference]")
    paths = sorted((shared_data / "esc10").glob("*.ogg"))[::15][:21]
    assert len(paths) >= 20
    folder = save_model(tmp_path / "model", fusion)
    theirs = transformers.ClapModel.from_pretrained(folder).eval()
    processor = transformers.ClapProcessor.from_pretrained(folder)
    clips = [audio.read(path, 48000) for path in paths]
    inputs = processor(
        text=CAPTIONS, audio=clips, sampling_rate=48000, return_tensors="pt", padding=True
    )
    inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])  # it is drawn where none is
    with torch.no_grad():
        outputs = theirs(**inputs)
    embedder = Embedder.from_folder(folder)
    found = embedder.audio(paths, "embedding")
    np.testing.assert_allclose(found, outputs.audio_embeds.numpy(), atol=1e-5)
    np.testing.assert_allclose(embedder.text(CAPTIONS), outputs.text_embeds.numpy(), atol=1e-5)
    assert np.ptp(found, axis=0).max() > 0.1


@pytest.mark.slow
def test_memory_does_not_depend_on_the_length(folder, tmp_path):
    script = textwrap.dedent("""
        import re, resource, sys
        from pathlib import Path
        from audiotrain.recipes.clap.embedder import Embedder

        def peak():  # bytes; what getrusage says on Linux begins with the parent's peak
            status = Path("/proc/self/status")
            if status.is_file():
                return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1])
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        embedder = Embedder.from_folder(sys.argv[1])
        embedder.audio([sys.argv[2]], "short")
        before = peak()
        embedder.audio([sys.argv[3]], "long")
        print(peak() - before)
    """)
    minute = sound(60, 8000)
    audio.write(tmp_path / "short.wav", np.tile(minute, 2), 8000)
    audio.write(tmp_path / "long.wav", np.tile(minute, 12), 8000)
    words = [folder, tmp_path / "short.wav", tmp_path / "long.wav"]
    printed = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, check=True
    )
    grown = int(printed.stdout)
    assert grown < 20e6, f"{grown / 1e6:.0f} MB more for 12 minutes (all mels: 18 MB, audio: 138)"


# ---- what cannot be read


def test_broken_recordings_are_left_out_and_named(embedder, tmp_path):
    good = [write_clip(tmp_path / f"{n}.wav", 11, seed=n) for n in range(2)]
    empty, text, cut_off = (tmp_path / f"{name}.wav" for name in ("empty", "text", "cut"))
    empty.touch()
    text.write_text("no audio")
    cut_off.write_bytes(good[0].read_bytes()[:900000])
    none = tmp_path / "none.wav"
    soundfile.write(none, np.zeros(0), 48000)
    found = embedder.embed([empty, good[0], text, cut_off, none, good[1]], "embedding")
    assert [clip.audio for clip in found.clips] == good
    assert_same(found.embeddings, embedder.audio(good, "embedding"))
    np.testing.assert_allclose(found.seconds, 11)
    assert len(found.problems) == 4
    for path, line in zip((empty, text, cut_off, none), found.problems, strict=True):
        assert line.startswith(str(path))
        assert "\n" not in line
    with pytest.raises(AudioError, match=r"text\.wav: not readable"):
        embedder.audio([good[0], text], "embedding")
    with pytest.raises(ValueError, match=r"none of 2 recordings can be read: .*empty\.wav"):
        embedder.embed([empty, empty], "embedding")


def test_nothing_and_empty_captions_are_refused(embedder):
    with pytest.raises(ValueError, match="embedding: no clips"):
        embedder.audio([], "embedding")
    with pytest.raises(ValueError, match="caption 2 of 2 is empty, expected text"):
        embedder.text(["rain", "  "])
