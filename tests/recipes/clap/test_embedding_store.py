"""Embeddings on disk: found by content, embedded once, kept whatever happens in the middle."""

import contextlib
import os
import sqlite3
import tarfile
import threading

import numpy as np
import pytest
from clap_folders import save_model, write_clip

from audiotrain.datasets.paths import recordings
from audiotrain.features.audio import AudioError
from audiotrain.recipes.clap import embedding_store
from audiotrain.recipes.clap.embedder import Embedder
from audiotrain.recipes.clap.embedding_store import EmbeddingStore


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    return Embedder.from_folder(save_model(tmp_path_factory.mktemp("clap") / "model"))


@pytest.fixture
def folder(tmp_path):
    """Recordings in a tree: of 1 s, of 12 s, and one inside a tar."""
    write_clip(tmp_path / "sounds/a.wav", 1, 16000, 1)
    write_clip(tmp_path / "sounds/deep/b.flac", 12, 16000, 2)
    inside = write_clip(tmp_path / "c.ogg", 1, 16000, 3)
    with tarfile.open(tmp_path / "sounds/shard.tar", "w") as tar:
        tar.add(inside, "c.ogg")
    return tmp_path / "sounds"


@pytest.fixture
def embedded(embedder, monkeypatch):
    """The names of the clips that are embedded from now on."""
    names = []
    spans = embedder.spans

    def recorded(clips, what):
        names.extend(clip.id for clip in clips)
        return spans(clips, what)

    monkeypatch.setattr(embedder, "spans", recorded)
    return names


@pytest.fixture
def embed(embedder, tmp_path):
    """Embeds a folder with a store that is opened for it; the clips' names and windows."""

    def call(folder, cache=tmp_path / "cache", model=embedder, strict=False):
        with contextlib.closing(EmbeddingStore(cache, model)) as store:
            found = store.embed(recordings(folder, []), "embedding", strict)
        call.problems = found.problems
        return {clip.id: spans for clip, spans in zip(found.clips, found.spans, strict=True)}

    return call


def assert_equal(found, expected):
    for one, other in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_entries_are_the_embedders(embed, embedder, folder):
    expected = embedder.embed(recordings(folder, []), "embedding")
    for _ in range(2):  # new, and from disk
        found = embed(folder)
        assert list(found) == ["a.wav", "deep/b.flac", "shard.tar/c.ogg"]
        for one, other in zip(found.values(), expected.spans, strict=True):
            assert_equal(one, other)


def test_only_what_is_new_is_embedded(embed, embedded, folder):
    before = embed(folder)
    assert len(embedded) == 3
    (folder / "a.wav").rename(folder / "deep/renamed.wav")
    (folder / "copy.flac").write_bytes((folder / "deep/b.flac").read_bytes())
    os.utime(folder / "deep/b.flac", (1, 1))
    with tarfile.open(folder / "shard.tar", "a") as tar:
        tar.add(write_clip(folder.parent / "d.wav", 1, 16000, 4), "d.wav")
    embedded.clear()
    after = embed(folder)
    assert embedded == ["shard.tar/d.wav"]
    assert list(after) == [
        *("copy.flac", "deep/b.flac", "deep/renamed.wav", "shard.tar/c.ogg", "shard.tar/d.wav")
    ]
    assert_equal(after["deep/renamed.wav"], before["a.wav"])
    assert_equal(after["copy.flac"], before["deep/b.flac"])
    embedded.clear()
    (folder / "shard.tar").unlink()
    assert set(embed(folder)) == {"copy.flac", "deep/b.flac", "deep/renamed.wav"}
    assert not embedded


def test_unchanged_files_are_not_read_again(embed, folder, monkeypatch):
    embed(folder)
    monkeypatch.setattr(embedding_store, "_digest", lambda clip: pytest.fail(f"{clip.id} read"))
    embed(folder)


def test_other_content_of_the_same_size_and_times_is_embedded(embed, embedded, folder):
    before = embed(folder)["a.wav"]
    times = (folder / "a.wav").stat()
    write_clip(folder / "a.wav", 1, 16000, 9)
    os.utime(folder / "a.wav", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (folder / "a.wav").stat().st_size == times.st_size
    embedded.clear()
    after = embed(folder)["a.wav"]
    assert embedded == ["a.wav"]
    assert np.abs(after.embeddings - before.embeddings).max() > 1e-3


def test_each_model_has_entries_of_its_own(embed, embedder, embedded, folder, tmp_path):
    other = Embedder.from_folder(save_model(tmp_path / "other", seed=1))
    first, second = embed(folder), embed(folder, model=other)
    assert np.abs(first["a.wav"].embeddings - second["a.wav"].embeddings).max() > 1e-3
    embedded.clear()
    assert_equal(embed(folder)["a.wav"], first["a.wav"])
    assert not embedded


def test_an_error_is_kept_until_the_file_or_the_decoder_changes(
    embed, embedded, folder, monkeypatch
):
    (folder / "bad.wav").write_text("no audio")
    (folder / "empty.mp3").touch()
    (folder / "gone.wav").symlink_to(folder / "nowhere.wav")
    embed(folder)
    (folder / "bad.wav").rename(folder / "worse.wav")
    embedded.clear()
    assert len(embed(folder)) == 3
    assert not embedded
    first, second, third = sorted(embed.problems)
    assert first == f"{folder}/empty.mp3: the file is empty (0 bytes)"
    assert second == f"{folder}/gone.wav: can't be read: No such file or directory"
    assert third.startswith(f"{folder}/worse.wav: not readable as audio")
    with pytest.raises(AudioError, match=r"empty\.mp3: the file is empty"):
        embed(folder, strict=True)
    monkeypatch.setattr(embedding_store.soundfile, "__libsndfile_version__", "99")
    embed(folder)
    assert sorted(embedded) == ["empty.mp3", "worse.wav"]
    for path in (folder / "a.wav", folder / "deep/b.flac", folder / "shard.tar"):
        path.unlink()
    with pytest.raises(ValueError, match=r"^none of 3 recordings can be read: .*empty\.mp3"):
        embed(folder)


def test_an_error_that_may_pass_is_not_kept(embed, embedder, embedded, folder, monkeypatch):
    (folder / "x.wav").write_text("x")
    spans = embedder.spans

    def failing(clips, what):
        for number, result in spans(clips, what):
            error = AudioError(f"{clips[number].audio}: can't be read: Input/output error")
            yield number, error if isinstance(result, AudioError) else result

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "spans", failing)
        assert len(embed(folder)) == 3
    assert embed.problems == [f"{folder}/x.wav: can't be read: Input/output error"]
    embedded.clear()
    embed(folder)
    assert embedded == ["x.wav"]


def test_what_changes_meanwhile_is_not_kept(embed, embedder, embedded, folder, monkeypatch):
    spans = embedder.spans

    def replaced(clips, what):
        for number, result in spans(clips, what):
            if clips[number].id == "a.wav":
                write_clip(folder / "a.wav", 1.5, 16000, 9)
            yield number, result

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "spans", replaced)
        assert "a.wav" not in embed(folder)
    assert embed.problems == [f"{folder}/a.wav: changed while it was embedded"]
    embedded.clear()
    assert embed(folder)["a.wav"].ends == pytest.approx([1.5])
    assert embedded == ["a.wav"]


def test_what_was_embedded_before_ctrl_c_stays(
    embed, embedder, embedded, folder, monkeypatch, capsys
):
    spans = embedder.spans

    def stopped(clips, what):
        for count, result in enumerate(spans(clips, what)):
            if count == 2:
                raise KeyboardInterrupt
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "spans", stopped)
        with pytest.raises(KeyboardInterrupt):
            embed(folder)
    kept = "2 of 3 recordings are embedded, and kept for next time"
    assert kept in capsys.readouterr().err.splitlines()
    embedded.clear()
    assert len(embed(folder)) == 3
    assert len(embedded) == 1


def test_two_at_once(embed, embedder, folder, monkeypatch):
    monkeypatch.setattr(embedding_store, "WRITE_SECONDS", 0)
    spans = embedder.spans
    inner = []

    def interleaved(clips, what):
        for number, result in spans(clips, what):
            yield number, result
            with monkeypatch.context() as patch:
                patch.setattr(embedder, "spans", spans)
                inner.append(embed(folder))

    with monkeypatch.context() as patch:
        patch.setattr(embedder, "spans", interleaved)
        outer = embed(folder)
    assert len(inner) == 3
    for found in inner:
        assert_equal(found["deep/b.flac"], outer["deep/b.flac"])


def test_another_process_that_writes_is_waited_for(embed, folder, tmp_path):
    file = tmp_path / "cache" / embedding_store.FILE
    file.parent.mkdir()
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    with contextlib.closing(other):
        other.execute("BEGIN EXCLUSIVE")
        timer = threading.Timer(0.3, other.rollback)
        timer.start()
        assert len(embed(folder)) == 3
        timer.join()


def stamp_without_text(file):
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE files SET stamp = CAST(X'B0C60A' AS TEXT)")


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"no database " * 100),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        lambda file: file.write_bytes(file.read_bytes().replace(b"TABLE files", b"T\xb0BLE files")),
        stamp_without_text,
    ],
)
def test_a_damaged_database_is_one_line(embed, folder, tmp_path, damage):
    file = tmp_path / "cache" / embedding_store.FILE
    embed(folder)
    damage(file)
    with pytest.raises(ValueError, match=r"^cache .*embeddings\.sqlite: .*delete it, and") as error:
        embed(folder)
    assert "\n" not in str(error.value)


def test_a_cache_that_cannot_be_written_is_one_line(embed, folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^cache .*file/embeddings\.sqlite: "):
        embed(folder, tmp_path / "file")
    with contextlib.closing(sqlite3.connect(tmp_path / "busy.sqlite")) as other:
        other.execute("CREATE TABLE x (y)")
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(embedding_store, "LOCK_SECONDS", 0.1)
        monkeypatch.setattr(embedding_store, "FILE", "busy.sqlite")
        with pytest.raises(ValueError, match="database is locked; --cache names another folder"):
            embed(folder, tmp_path)
