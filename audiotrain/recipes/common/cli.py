"""Commands of a recipe: chosen by the first word, with settings from the others."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from audiotrain import backend, config
from audiotrain.features.audio import AudioWarning
from audiotrain.recipes.common.run import RECIPES, settings_of_resumed
from audiotrain.recipes.common.settings import RunSettings
from audiotrain.train.distributed import ranks
from audiotrain.utils.errors import exit_code
from audiotrain.utils.progress import end_progress

CONFIG_DIFF = "audiotrain config diff A B"
ELSEWHERE = {
    "config": CONFIG_DIFF,
    "diff": CONFIG_DIFF,
    "runs": "audiotrain runs",
    "report": "audiotrain report RUN RUN",
}
"""Commands that are not a recipe's, by a word that may be typed after the recipe's name."""


class Command(NamedTuple):
    """The settings and the function of a command, and the setting that takes words without a flag.

    Under mlx.launch rank 0 alone runs a command, except for those that train.
    """

    settings: type
    function: Callable
    positional: str | None = None

    @property
    def trains(self) -> bool:
        """Whether it makes runs: all ranks run it, it has presets, and it can be resumed."""
        return issubclass(self.settings, RunSettings)


def main(
    recipe: str,
    commands: Mapping[str, Command],
    argv: Sequence[str] | None = None,
    all_cores: Callable[[object], bool] = lambda settings: False,
) -> int:
    """Run a command; 2 and one line a mistake on stderr when the user has to change something.

    `all_cores(settings)` is whether batches are split over the cores. `train` is the default.
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
        name, rest = config.choose_command(words, tuple(commands), "train", ELSEWHERE)
        settings = load_settings(recipe, commands, name, rest)
        backend.configure("full", streams=None if all_cores(settings) else 1)
        if commands[name].trains or ranks.join().rank == 0:
            with missing_audio_reported():
                commands[name].function(settings)

    return exit_code(run)


@contextlib.contextmanager
def missing_audio_reported() -> Iterator[None]:
    """Print an AudioWarning of the block as one line on stderr, once for each recording."""
    reported: set[str] = set()

    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message, category, filename, lineno, file=None, line=None):
            if not issubclass(category, AudioWarning):
                show_others(message, category, filename, lineno, file, line)
            elif str(message) not in reported:
                reported.add(str(message))
                end_progress()
                print(f"warning: {message}", file=sys.stderr)

        warnings.simplefilter("always", AudioWarning)
        warnings.showwarning = show
        yield


def load_settings(recipe: str, commands: Mapping[str, Command], name: str, words: Sequence[str]):
    """Settings of a command from its words; of a resumed run from its config.yaml, then words."""
    kind, _, positional = commands[name]
    presets = RECIPES / recipe / "presets" if commands[name].trains else None
    if presets is not None and not config.wants_help(words):
        stated = config.stated(kind, words, ("output", "resume"), presets)
        if stated["resume"]:  # required settings are in the run's file
            return settings_of_resumed(kind, stated["output"], words, presets)
    prog = f"audiotrain {recipe} {name}"
    return config.load(kind, words, presets=presets, prog=prog, positional=positional)
