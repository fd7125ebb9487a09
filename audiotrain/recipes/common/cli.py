"""Commands of a recipe: chosen by the first word, set by the others, mistakes told in a line."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import NamedTuple

from audiotrain import backend, config
from audiotrain.recipes.common.run import RECIPES, settings_of_resumed
from audiotrain.train.distributed import ranks
from audiotrain.utils.errors import exit_code


class Command(NamedTuple):
    """What a command does, its settings' dataclass, and the setting that takes words without a
    flag. Under mlx.launch rank 0 alone runs it, but for those that train; `train` is the
    default."""

    settings: type
    function: Callable
    positional: str | None = None


def trains(command: Command) -> bool:
    """Whether a command makes runs: all ranks run it, it has presets, and it can be resumed."""
    return "resume" in {field.name for field in fields(command.settings)}


def main(
    recipe: str,
    commands: Mapping[str, Command],
    argv: Sequence[str] | None = None,
    all_cores: Callable[[object], bool] = lambda settings: False,
) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something.

    `all_cores` says of a command's settings whether batches are split over the cores.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in (["-h"], ["--help"]):
        phrases = {
            name: f"{config.first_sentence(command.settings.__doc__ or '')}."
            for name, command in commands.items()
        }
        config.print_commands(f"audiotrain {recipe}", phrases, "Without a command: train.")
        return 0

    def run() -> None:
        name, rest = config.choose_command(words, tuple(commands), "train")
        settings = load_settings(recipe, commands, name, rest)
        backend.configure("full", streams=None if all_cores(settings) else 1)
        if trains(commands[name]) or ranks.join().rank == 0:
            commands[name].function(settings)

    return exit_code(run)


def load_settings(recipe: str, commands: Mapping[str, Command], name: str, words: Sequence[str]):
    """Settings of a command from its words; a resumed run's are its own, then the words."""
    kind, _, positional = commands[name]
    presets = RECIPES / recipe / "presets" if trains(commands[name]) else None
    if trains(commands[name]) and not config.wants_help(words):
        found = config.stated(kind, words, ("output", "resume"), presets)
        if found["resume"]:  # what is required the run's own file has
            return settings_of_resumed(kind, found["output"], words, presets)
    return config.load(
        kind,
        words,
        presets=presets,
        prog=f"audiotrain {recipe} {name}",
        description=kind.__doc__ or "",
        positional=positional,
    )
