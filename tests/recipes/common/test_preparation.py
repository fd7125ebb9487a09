"""Preparation by worker processes: the bytes of one core, one line for what is wrong, no rests."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile
from preparing import contents, on_cores

from audiotrain.datasets.chords import Item
from audiotrain.features import audio
from audiotrain.features.cache import FeatureCache
from audiotrain.music.segments import Segment
from audiotrain.recipes.chords.songs import (
    FeatureSettings,
    SongLibrary,
    Wanted,
    compose_songs,
    load_renderings,
)
from audiotrain.recipes.common.preparation import prepare
from audiotrain.train.distributed.ranks import SingleProcess
from audiotrain.utils.cores import available_cores
from audiotrain.utils.errors import UserError

RATE = 22050


def songs(folder) -> list[Item]:
    """MIDI files, a recording of several blocks, a stereo one, and one that cannot be read."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        song = pretty_midi.PrettyMIDI()
        part = pretty_midi.Instrument(8 * number)
        part.notes = [
            pretty_midi.Note(80, int(rng.integers(40, 80)), start, start + 0.7)
            for start in np.arange(0, 4, 0.5)
        ]
        song.instruments = [part]
        song.write(str(folder / f"{number}.mid"))
    audio.write(folder / "long.wav", 0.1 * rng.normal(size=100 * RATE).astype(np.float32), RATE)
    soundfile.write(folder / "stereo.wav", 0.1 * rng.normal(size=(44100, 2)), 44100)
    (folder / "damaged.wav").write_bytes(b"RIFF")
    names = ["0.mid", "damaged.wav", "1.mid", "2.mid", "long.wav", "stereo.wav"]
    return [Item(name, folder / name, (Segment(0, np.inf, "C:maj"),)) for name in names]


def prepared(folder, items) -> tuple[list, dict[str, bytes]]:
    library = SongLibrary(FeatureSettings(), folder)
    loaded = load_renderings(library, [Wanted(i, range(2)) for i in items])
    made = compose_songs(library, 3, 8.0, [[Segment(0, 2, "C:maj"), Segment(2, 4, "F:min")]])
    loaded += made
    return loaded, contents(folder)


@pytest.mark.slow
def test_workers_leave_the_bytes_of_one_core(tmp_path, monkeypatch):
    items = songs(tmp_path / "songs")
    on_cores(monkeypatch, 1)
    expected, bytes_of_one = prepared(tmp_path / "one", items)
    assert "damaged.wav" in expected[1]
    # Onsets are of the first rendering; of each recording it is kept what it lacks.
    assert len(bytes_of_one) == 3 * 3 + 2 * 2 + 3 * 2 + 2
    on_cores(monkeypatch, 2)
    results, bytes_of_two = prepared(tmp_path / "two", items)
    assert bytes_of_two == bytes_of_one
    for result, other in zip(results, expected, strict=True):
        if isinstance(other, str):
            assert result == other
            continue
        for song, same in zip(result, other, strict=True):
            assert (song.name, song.segments) == (same.name, same.segments)
            np.testing.assert_array_equal(song.features, same.features)
            np.testing.assert_array_equal(song.classes, same.classes)


# ---- what goes wrong


def write_and(number: int, folder, item: int) -> str | None:
    """Make an entry; in item 5 get a signal while it is written."""
    if item == 5:
        replace = os.replace

        def killed(*paths):
            os.kill(os.getpid(), number)
            replace(*paths)

        os.replace = killed
    FeatureCache(folder).get(f"{item}", {}, lambda: np.full(3, item))
    return None


def fails(item: int) -> str | None:
    if item == 5:
        raise UserError("no room")
    return None


def run(function, cache, ranks=None):
    return prepare(
        function, range(20), "writing", name="song {}".format, caches=[cache], ranks=ranks
    )


def test_a_killed_worker_leaves_one_line_and_nothing_half_written(tmp_path, monkeypatch):
    on_cores(monkeypatch, 2)
    cache = FeatureCache(tmp_path)
    with pytest.raises(ValueError, match=r"^song 5: .* died \(SIGKILL\)") as caught:
        run(partial(write_and, signal.SIGKILL, tmp_path), cache)
    assert "\n" not in str(caught.value)
    assert all(path.suffix == ".npy" for path in tmp_path.iterdir())
    assert 1 <= len(contents(tmp_path)) < 20


class TwoRanks(SingleProcess):
    """Rank 1 of two on a host; rank 0 answers what it is given."""

    rank, size = 1, 2

    def __init__(self, answer):
        self.answer, self.gathered = answer, []

    def gather(self, value, saving=False):
        self.gathered.append(value)
        return [value if len(self.gathered) == 1 else self.answer, value]


def test_ranks_of_a_host_share_the_items(tmp_path):
    made = []
    ranks = TwoRanks([["bad", *[None] * 9], None])
    problems = run(lambda item: made.append(item), FeatureCache(tmp_path), ranks)
    assert made == list(range(1, 20, 2))
    assert problems == ["bad", *[None] * 19]


def test_what_fails_on_one_rank_ends_all(tmp_path):
    ranks = TwoRanks([[], "/data/a.wav: the worker process died"])
    with pytest.raises(ValueError, match="^rank 0: /data/a.wav: the worker process died"):
        run(lambda item: None, FeatureCache(tmp_path), ranks)
    ranks = TwoRanks([[None], None])
    with pytest.raises(ValueError, match="^no room"):
        run(fails, FeatureCache(tmp_path), ranks)
    assert ranks.gathered[1][1] == "no room"  # told before it leaves


def test_a_rank_that_is_lost_is_a_line(tmp_path):
    class Lost(SingleProcess):
        def gather(self, value, saving=False):
            raise RuntimeError("[ring] connection to a peer was lost")

    with pytest.raises(ValueError, match="^a rank ended while recordings were prepared: .ring. co"):
        run(lambda item: None, FeatureCache(tmp_path), Lost())


# ---- commands


def state_of(process: int | str) -> list[str]:
    """State, parent and further fields of a process by /proc; none where it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else fields


def workers_of(process: int) -> list[int]:
    running = [path.name for path in Path("/proc").glob("[0-9]*")]
    children = [int(one) for one in running if state_of(one)[1:2] == [str(process)]]
    return [one for one in children if b"process_pool" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.fixture
def composing(tmp_path):
    """The command that trains on composed songs, while two workers play them."""
    if not sys.platform.startswith("linux") or available_cores() < 2:
        pytest.skip("needs /proc and two cores")
    words = ["--output", tmp_path / "run", "--cache", tmp_path / "cache", "--composed", "400"]
    process = subprocess.Popen(
        [sys.executable, "-m", "audiotrain.recipes.chords", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while len(workers := workers_of(process.pid)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while len(list((tmp_path / "cache").glob("*.npy"))) < 12:  # both are at work
        time.sleep(0.05)
    yield process, workers
    if process.poll() is None:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen, workers: list[int]) -> tuple[int, list[str]]:
    """Exit status and errors but for bars of progress, once no worker is left."""
    _, errors = process.communicate(timeout=300)
    deadline = time.monotonic() + 120
    while any(map(state_of, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(state_of, workers))
    lines = errors.replace("\r", "\n").splitlines()
    return process.returncode, [line for line in lines if line and "composing" not in line]


def partial_entries(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if path.suffix != ".npy"]


@pytest.mark.slow
def test_a_command_of_which_a_worker_is_killed_refuses_in_one_line(composing, tmp_path):
    process, workers = composing
    os.kill(workers[0], signal.SIGKILL)
    status, errors = ended(process, workers)
    assert status == 2
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: composed song ")
    assert "died (SIGKILL)" in errors[0]
    assert partial_entries(tmp_path / "cache") == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_is_left_by_a_command_that_is_stopped(composing, tmp_path, number):
    process, workers = composing
    cache = tmp_path / "cache"
    if number == signal.SIGINT:  # as a terminal's Ctrl-C
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    status, errors = ended(process, workers)
    assert (status, errors) == {signal.SIGINT: (130, ["stopped"])}.get(number, (-number, []))
    deadline = time.monotonic() + 10
    while number != signal.SIGINT and time.monotonic() < deadline and partial_entries(cache):
        FeatureCache(cache)  # the next command removes what no process lives to remove
        time.sleep(0.1)  # a process that was killed has its number until its parent's is reaped
    assert partial_entries(cache) == []
