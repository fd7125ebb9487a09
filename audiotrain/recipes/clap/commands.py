"""Train and use CLAP: sounds and captions in one space.

    python -m audiotrain.recipes.clap                            learns from composed scenes
    python -m audiotrain.recipes.clap --data FOLDER --pretrained laion/clap-htsat-unfused
                                                                 fine-tunes on audio and captions
    python -m audiotrain.recipes.clap evaluate --data FOLDER     scores the newest run
    python -m audiotrain.recipes.clap embed --data FOLDER --output sounds.safetensors
    python -m audiotrain.recipes.clap search "rain on a roof" --index sounds.safetensors
    python -m audiotrain.recipes.clap classify FILES --labels dog,rain
    python -m audiotrain.recipes.clap export --output FOLDER     writes what transformers reads

Each command explains its settings with --help. Under mlx.launch all processes train; rank 0 alone
writes and prints.
"""

from collections.abc import Sequence

from audiotrain.recipes.clap import inference
from audiotrain.recipes.clap.pretrained import export
from audiotrain.recipes.clap.recipe import ClapRecipe
from audiotrain.recipes.clap.scoring import Scores
from audiotrain.recipes.clap.settings import ExportSettings, TrainSettings
from audiotrain.recipes.common import cli, run
from audiotrain.recipes.common.cli import Command


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something."""
    return cli.main("clap", COMMANDS, argv, all_cores=uses_batch_splitting)


def uses_batch_splitting(settings) -> bool:
    """Whether batches are split over the cores: not with checkpoint_blocks, since splitting undoes
    what gradient checkpointing saves."""
    return not getattr(settings, "checkpoint_blocks", False)


def train(settings: TrainSettings) -> Scores | None:
    """Train, write the best model's folder and test it on unseen clips; their scores, on rank 0."""
    return run.train(ClapRecipe(settings))


COMMANDS = {
    "train": Command(TrainSettings, train),
    **inference.COMMANDS,
    "export": Command(ExportSettings, export),
}
