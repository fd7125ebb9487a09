"""Model folders of CLAP runs: the best weights as Hugging Face's ClapModel reads them."""

from pathlib import Path

from audiotrain import config
from audiotrain.models.clap.feature_extraction import SETTINGS_FILE, ClapFeatureSettings
from audiotrain.models.clap.model import CLAP
from audiotrain.models.clap.tokenizer import TOKENIZER_FILE, VOCABULARY_FILE, Tokenizer
from audiotrain.models.clap.weights import CONFIG, SAFETENSORS
from audiotrain.models.lora import lora_parameters, merge_lora
from audiotrain.recipes.clap.embedder import MODEL
from audiotrain.recipes.clap.pretrained import Start, make_module
from audiotrain.recipes.clap.settings import ExportSettings, TrainSettings
from audiotrain.recipes.clap.training import CLAPTraining
from audiotrain.train import checkpoint
from audiotrain.train.weight_averaging import interpolate
from audiotrain.utils.arrays import arrays_of, put_arrays


def write_best(module: CLAPTraining, start: Start, run: Path) -> Path:
    """Write `model/`, the run's best weights with LoRA merged; the module has them from then on."""
    best = best_of(module, run)
    write_model(best, start.tokenizer, start.features, run / MODEL, start.folder)
    return run / MODEL


def withdraw(run: Path) -> None:
    """Take away the model of a run that goes on: what is best may change, and the checkpoint that
    it was written from stays."""
    for name in (CONFIG, SAFETENSORS):
        (run / MODEL / name).unlink(missing_ok=True)


def best_of(module: CLAPTraining, run: Path) -> CLAP:
    """The module's CLAP with the run's best weights, LoRA merged."""
    checkpoint.load_weights(module, run / "checkpoints" / "best")
    if lora_parameters(module.clap):
        merge_lora(module.clap)
    module.eval()
    return module.clap


def write_model(
    clap: CLAP,
    tokenizer: Tokenizer,
    features: ClapFeatureSettings,
    folder: Path,
    source: Path | None,
) -> None:
    """A model folder; what `source` has for tokenizer and front end is copied."""
    clap.logit_scale_t = clap.logit_scale_a + 0
    clap.save_pretrained(folder, source)
    if not any((folder / name).is_file() for name in (TOKENIZER_FILE, VOCABULARY_FILE)):
        tokenizer.save(folder)
    if not (folder / SETTINGS_FILE).is_file():
        features.save(folder)


def export(settings: ExportSettings) -> Path:
    """Write the model of a run, or what lies between it and its start, to `settings.output`."""
    run, output = find_run(settings.checkpoint), settings.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output}: exists already, expected a new or empty folder")
    trained = config.load(TrainSettings, ["--config", str(run / "config.yaml")])
    if (run / MODEL / SAFETENSORS).is_file():
        source = run / MODEL
        clap, features = CLAP.from_pretrained(source), ClapFeatureSettings.read(source)
        tokenizer = Tokenizer.read(source)
    else:  # of a run that was stopped
        start = Start.resumed(trained, run)
        clap = best_of(make_module(trained, start), run)
        tokenizer, features, source = start.tokenizer, start.features, start.folder
    if settings.share < 1:
        if trained.pretrained is None:
            raise ValueError(
                f"share={settings.share}: the run in {run} began from scratch, expected one with "
                "--pretrained, between whose weights and its own there is something"
            )
        before = arrays_of(CLAP.from_pretrained(Start.resumed(trained, run).folder))
        put_arrays(clap, interpolate(before, arrays_of(clap), settings.share))
    write_model(clap, tokenizer, features, output, source)
    print(f"{output}: the model of {run}, share {settings.share:g} of the way from its start")
    if trained.loss.kind == "siglip":
        print("siglip's bias is not part of it: ClapModel has none; similarities need none")
    return output


def find_run(place: Path) -> Path:
    """A run folder with a best checkpoint: `place`, or the newest one in it."""
    runs = [run for run in (place, *_folders(place)) if (run / "config.yaml").is_file()]
    runs = [run for run in runs if checkpoint.exists(run / "checkpoints" / "best")]
    if not runs:
        raise ValueError(
            f"{place}: no checkpoints/best in it, expected the folder of a trained run"
        )
    return max(runs, key=lambda run: (run == place, (run / "checkpoints").stat().st_mtime))


def _folders(place: Path) -> list[Path]:
    return [path for path in place.iterdir() if path.is_dir()] if place.is_dir() else []
