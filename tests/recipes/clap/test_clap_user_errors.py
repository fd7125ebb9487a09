"""What training CLAP cannot do: exit code 2, one line that names it, and nothing lost."""

import pickle
import shutil

import huggingface_hub.constants
import numpy as np
import pytest
import tiny_clap
from disk import content
from tiny_clap import STEPS, TINY, captioned, command, make_quick, read_json

from audiotrain.features import audio
from audiotrain.models.clap import weights


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `data`, the model folder `start`, `cache` and a trained `run`."""
    folder = tmp_path_factory.mktemp("refusals")
    captioned(folder / "data", 10)
    tiny_clap.pretrained(folder / "start")
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        words = ["--data", folder / "data", "--output", folder / "run", *TINY, "--steps", 1]
        words += ["--cache", folder / "cache", "--pretrained", folder / "start"]
        assert command(*words) == 0
    return folder


@pytest.fixture
def refused(capsys, monkeypatch):
    """Calls the recipe, and gives the line with which it refuses."""
    make_quick(monkeypatch)

    def call(*words, alone=True):
        capsys.readouterr()
        assert command(*words) == 2
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        lines = printed.err.strip().splitlines()
        assert lines[-1].startswith("error: ")
        if alone:
            assert len(lines) == 1, lines
        return lines[-1]

    return call


def words(place, data, output, *more):
    start = ["--pretrained", place / "start", "--cache", place / "cache"]
    return ["--data", data, "--output", output, *start, *TINY, *STEPS, *more]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "unknown command 'trian' (did you mean train?)"),
        (["--mdoe", "full"], "--mdoe: unknown flag (did you mean --mode?)"),
        (["--prest", "clap-small"], "--prest: unknown flag (did you mean --preset?)"),
        (["--mode", "half"], "--mode: found 'half', expected"),
        (["--mode", "lora"], "mode=lora, expected --pretrained, a model to start from"),
        (["--batch-size", "1"], "batch-size=1, expected 2 or more"),
        (["--micro-batch", "-1"], "micro-batch=-1, expected 0 or more"),
        (["--steps", "0"], "steps=0, expected 1 or more"),
        (["--last", "0"], "last=0, expected 1 or more"),
        (["--composed", "3"], "composed=3 without data, expected 10 or more"),
        (["--vocabulary", "100"], "vocabulary=100, expected 261 or more"),
        (["--valid", "0"], "valid=0.0, expected more than 0 and less than 1"),
        (["--max-minutes", "nan"], "max-minutes=nan, expected more than 0"),
        (["--loss.kind", "triplet"], "--loss.kind: found 'triplet', expected"),
        (["--lora.rank", "0"], "lora.rank=0, expected 1 or more"),
        (["--lora.targets"], "--lora.targets: nothing follows"),
        (["--templates"], "--templates: nothing follows"),
        (["--augmentation.mix", "2"], "mix=2.0 and join=0.0, expected at most 1 together"),
        (["--optimization.layer-decay", "0"], "layer-decay=0.0, expected more than 0 and at"),
        (["--optimization.head-rate", "nan"], "head-rate=nan, expected more than 0"),
        (["--optimization.ema-decay", "1"], "ema-decay=1.0, expected 0 or more and less than 1"),
        (["--features.hop", "100"], "the front end gives 2401 frames of 64 mels"),
        (["--features.mels", "32"], "features: the front end gives 251 frames of 32 mels"),
        (["--features.rate", "0"], "features.rate=0, expected 1 or more"),
        (["--model.audio-config.spec-size", "100"], "spec-size=100, num_mel_bins=64"),
        (["--pretrained", "x", "--model.projection-dim", "8"], "--model…: expected no such"),
        (["--resume"], "--resume: needs --output, the run folder to continue"),
        (["export"], "--output: required"),
        (["export", "--output", "x", "--share", "2"], "share=2.0, expected 0 to 1"),
        (["export", "--output", "x", "--checkpoint", "none"], "none: no trained run there"),
        (["--pretrained", "gone"], "gone: no such folder, expected a folder or a hub id such as"),
    ],
)
def test_words(refused, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    output = [] if words[0] in ("export", "trian") or "--resume" in words else ["--output", "run"]
    assert message in refused(*words, *output)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "config.yaml"]


def test_a_hub_id_offline(refused, place, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    out = ["--data", place / "data", "--output", tmp_path / "run"]
    assert "laion/none-such" in refused(*out, "--pretrained", "laion/none-such")
    assert "laion/clap-htsat-unfused: no folder, not in" in refused(*out, "--pretrained")


# ---- data


def test_folders_without_pairs(refused, place, tmp_path):
    assert "gone: no such folder" in refused(*words(place, tmp_path / "gone", tmp_path / "a"))
    (tmp_path / "empty").mkdir()
    assert "empty" in refused(*words(place, tmp_path / "empty", tmp_path / "b"))
    for suffix in (".wav", ".txt"):
        lonely = captioned(tmp_path / f"lonely{suffix}", 3)
        for path in lonely.glob(f"*{'.txt' if suffix == '.wav' else '.wav'}"):
            path.unlink()
        assert str(lonely) in refused(*words(place, lonely, tmp_path / f"c{suffix}"))


def test_too_few_clips_or_captions_of_one_meaning(refused, place, tmp_path):
    one = captioned(tmp_path / "one", 1)
    assert "of 1 clip leaves" in refused(*words(place, one, tmp_path / "a"))
    assert not (tmp_path / "a" / "split.json").exists()
    equal = captioned(tmp_path / "equal", 6)
    for path in equal.glob("*.txt"):
        path.write_text("A sound.\n")
    message = "6 clips that mean the same ('a sound'), expected captions of two meanings or more"
    assert message in refused(*words(place, equal, tmp_path / "b"))


def break_some(folder):
    """Files that cannot be read, and odd ones that can."""
    tone = (0.1 * np.sin(np.arange(16000) / 10)).astype(np.float32)
    whole = (folder / "00.wav").read_bytes()
    (folder / "zero.wav").write_bytes(b"")
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 3])
    (folder / "bytes.mp3").write_bytes(bytes(range(256)) * 40)
    audio.write(folder / "nan.wav", np.full(9000, np.nan, np.float32), 8000)
    long = np.tile(tone, 4)
    long[-5] = np.inf
    audio.write(folder / "nanlong.wav", long, 8000)  # longer than the input
    audio.write(folder / "short.wav", tone[:400], 8000)
    audio.write(folder / "long.wav", np.tile(tone, 8), 8000)
    audio.write(folder / "fast.wav", tone, 192_000)
    audio.soundfile.write(folder / "six.wav", np.tile(tone[:, None], 6), 44100)
    texts = {
        "zero": "a",
        "cut": "b",
        "bytes": "c",
        "nan": "d",
        "nanlong": "e",
        "short": "Füße 犬",
        "long": "word " * 2000,
        "fast": "f",
        "six": "g",
    }
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text + "\n", "utf-8")
    (folder / "01.txt").write_text("\n")  # an empty caption
    (folder / "nocaption.wav").write_bytes(whole)
    (folder / "noaudio.txt").write_text("nothing to hear\n")
    return folder


def test_bad_clips_are_left_out_with_a_count(place, tmp_path, monkeypatch, capsys):
    make_quick(monkeypatch)
    folder = break_some(captioned(tmp_path / "data", 12))
    assert command(*words(place, folder, tmp_path / "run", "--epochs", 1)) == 0
    printed = capsys.readouterr().out
    listed = printed.split("  problems")[1]
    for name in ("zero.wav", "cut.wav", "bytes.mp3", "nocaption.wav", "noaudio.txt", "01"):
        assert name in listed, name
    assert "1 of 28 captions have more than 24 tokens, of which the end is not read: wor" in printed
    assert "left out 2 of " in printed
    assert "nan.wav: " in printed
    assert "nanlong.wav: " in printed
    named = {
        n for part in read_json(tmp_path / "run" / "split.json")["items"].values() for n in part
    }
    assert {"short.wav", "long.wav", "fast.wav", "six.wav"} < named


def test_all_bad_clips_are_in_a_file(place, tmp_path, monkeypatch, capsys):
    make_quick(monkeypatch)
    folder = captioned(tmp_path / "data", 30)
    for number in range(30, 38):
        (folder / f"{number}.wav").write_text("no audio")
        (folder / f"{number}.txt").write_text("noise")
    for number in range(40, 47):
        audio.write(folder / f"{number}.wav", np.full(4000 + number, np.nan, np.float32), 8000)
        (folder / f"{number}.txt").write_text("nothing")
    listed = tmp_path / "run/problems.txt"
    assert command(*words(place, folder, tmp_path / "run", "--steps", 1)) == 0
    printed = capsys.readouterr().out
    assert f"and 5 more, all in {listed}" in printed  # by their headers
    assert f"  and 2 more, all in {listed}" in printed  # decoded
    lines = listed.read_text().splitlines()
    assert len(lines) == 15
    for number in (*range(30, 38), *range(40, 47)):
        assert sum(f"{number}.wav: " in line for line in lines) == 1
    (clean := tmp_path / "clean").mkdir()
    assert command(*words(place, place / "data", clean, "--steps", 1)) == 0
    assert not (clean / "problems.txt").exists()


def test_strict_stops_at_the_first_bad_clip(refused, place, tmp_path):
    folder = captioned(tmp_path / "data", 10)
    (folder / "zero.wav").write_bytes(b"")
    (folder / "zero.txt").write_text("a")
    line = refused(*words(place, folder, tmp_path / "a", "--strict"), alone=False)
    assert "1 of 11 clips can't be read, first zero.wav" in line
    for name in ("zero.wav", "zero.txt"):
        (folder / name).unlink()
    for path in folder.glob("*.wav"):
        audio.write(path, np.full(4000 + int(path.stem), np.nan, np.float32), 8000)
    line = refused(*words(place, folder, tmp_path / "b", "--strict"), alone=False)
    assert "NaN or Inf samples" in line
    line = refused(*words(place, folder, tmp_path / "c"), alone=False)
    assert "train clips can't be read" in line


def test_a_batch_larger_than_the_data_is_all_of_them(place, tmp_path, monkeypatch):
    make_quick(monkeypatch)
    more = ["--batch-size", 1000, "--steps", 1]
    assert command(*words(place, place / "data", tmp_path / "run"), *more) == 0


# ---- weights


@pytest.fixture
def start(place, tmp_path):
    """A model folder that the test may change."""
    shutil.copytree(place / "start", tmp_path / "start")
    return tmp_path / "start"


class Touch:
    """A pickle that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_model_folders_that_do_not_fit(refused, place, start, tmp_path):
    def line(output):
        return refused(*words(place, place / "data", tmp_path / output, "--pretrained", start))

    config = (start / "config.json").read_text()
    (start / "config.json").write_text(
        config.replace('"model_type": "clap"', '"model_type": "bert"')
    )
    assert "model_type='bert', expected 'clap'" in line("a")
    (start / "config.json").write_text(config.replace('"vocab_size": 300', '"vocab_size": 280'))
    assert "tokens, but the text encoder has a vocabulary of 280" in line("b")
    (start / "config.json").unlink()
    assert "config.json: cannot be read" in line("c")
    (start / "config.json").write_text(config)
    settings = (start / "preprocessor_config.json").read_text()
    (start / "preprocessor_config.json").write_text(settings.replace("rand_trunc", "fusion"))
    assert "fusion True; the model takes up to 64 of 16, fusion False" in line("d")
    (start / "preprocessor_config.json").unlink()
    assert "found no preprocessor_config.json" in line("e")
    (start / "preprocessor_config.json").write_text(settings)
    (start / "model.safetensors").unlink()
    (start / weights.BIN).write_bytes(pickle.dumps(Touch(tmp_path / "touched")))
    refusal = refused(
        *words(place, place / "data", tmp_path / "f", "--pretrained", start), alone=False
    )
    assert weights.BIN in refusal
    assert not (tmp_path / "touched").exists()


def test_runs_are_not_written_over_nor_continued_as_others(refused, place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert "holds a run already" in refused(*words(place, place / "data", tmp_path / "run"))
    line = refused("--output", tmp_path / "run", "--resume", "--seed", 1)
    assert "--resume: seed is 1, expected 0 as in the run" in line
    line = refused("--output", tmp_path / "none", "--resume")
    assert "no config.yaml, so there is no run to resume" in line
    for output in (tmp_path / "run", place / "run"):
        line = refused("evaluate", "--data", place / "data", "--output", output, alone=False)
        assert f"--output {output}: holds a run, expected a folder for scores alone" in line
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


@pytest.mark.parametrize("own", ["config.yaml", "model"])
def test_what_a_user_has_in_the_run_folder_stays(refused, place, tmp_path, own):
    """The weights that are tuned, in the folder that the run would write its own to; settings."""
    shutil.copytree(place / "run" / "model", tmp_path / "w" / "model")
    (tmp_path / "w" / "config.yaml").write_text("# mine\nsteps: 1\n")
    (tmp_path / "w" / "metrics.json").write_text("{}")
    gone = {"config.yaml", "model"} - {own}
    for name in gone:
        (tmp_path / "w" / name).rename(tmp_path / name)
    line = refused("evaluate", "--data", place / "data", "--output", tmp_path / "w")
    assert "holds metrics.json already; --overwrite replaces it" in line
    (tmp_path / "w" / "metrics.json").unlink()
    before = content(tmp_path)
    line = refused(*words(place, place / "data", tmp_path / "w"))
    assert f"holds a run already ({own}); --resume continues it, --output names another" in line
    assert content(tmp_path) == before


def test_a_run_that_is_refused_leaves_no_settings(refused, place, tmp_path):
    """So the same folder can be used once the mistake is mended; refusal before audio is read."""
    for flag, value in (("--mode", "last-n"), ("--lora.targets", "nosuch")):
        chosen = ["--pretrained", place / "run" / "model", flag, value]
        chosen += ["--last", 99] if value == "last-n" else ["--mode", "lora"]
        refusal = refused(*words(place, place / "data", tmp_path / "run"), *chosen, alone=False)
        assert "reading" not in refusal
        assert "holds a run" not in refusal
        assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_run_that_its_logger_refused_can_be_started_again(refused, place, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def refuses(**_):
        raise wandb.Error("No API key configured. Use `wandb login` to log in.")

    monkeypatch.setattr(wandb, "init", refuses)
    given = words(place, place / "data", tmp_path / "run", "--epochs", 1)
    line = refused(*given, "--loggers", "wandb", alone=False)
    assert "W&B: No API key configured. Use `wandb login` to log in; WANDB_MODE=offline" in line
    assert command(*given) == 0


def test_between_what_a_run_from_scratch_started_from_there_is_nothing(
    refused, tmp_path, monkeypatch
):
    make_quick(monkeypatch)
    cache = ["--cache", tmp_path / "cache", *TINY]
    assert command("--output", tmp_path / "run", "--composed", 20, "--steps", 1, *cache) == 0
    export = ["export", "--checkpoint", tmp_path / "run", "--output", tmp_path / "out"]
    assert "began from scratch" in refused(*export, "--share", 0.5)
    assert not (tmp_path / "out").exists()
    assert command(*export) == 0


def test_help_names_every_setting(capsys):
    for verb, flag in (("train", "--optimization.layer-decay"), ("export", "--share")):
        with pytest.raises(SystemExit) as done:
            command(verb, "--help")
        assert not done.value.code
        assert flag in capsys.readouterr().out
