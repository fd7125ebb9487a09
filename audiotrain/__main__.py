"""`audiotrain chords …`, `clap …`, `classify …`: the recipes as one command; what compares runs."""

import sys
from collections.abc import Sequence
from importlib import import_module

from audiotrain import __version__
from audiotrain.config import print_commands
from audiotrain.utils.errors import refuse
from audiotrain.utils.text import nearest

COMMANDS = {
    "chords": ("recipes.chords", "Train and use models that recognise chords."),
    "clap": ("recipes.clap", "Train and use CLAP, which embeds sounds and texts together."),
    "classify": ("recipes.classify", "Train and use classifiers of clips."),
    "runs": ("evaluation.report.run_table", "List runs with their scores."),
    "report": ("evaluation.report.html", "Write a page that shows and compares runs."),
    "config": (
        "evaluation.report.config_diff",
        "`config diff A B` compares two runs' settings.",
    ),
}
"""By name, the module whose `main` takes the words after it, and what it does."""
DIFF = ("diff", "config-diff", "compare")
"""Words that may be meant for `config diff`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 when there is none of that name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in ([], ["-h"], ["--help"]):
        phrases = {name: phrase for name, (_, phrase) in COMMANDS.items()}
        print_commands("audiotrain", phrases, "--version prints the version.")
        return 0
    if words[0] in ("-V", "--version", "version"):
        print(f"audiotrain {__version__}")
        return 0
    if words[0] not in COMMANDS:
        similar = nearest(words[0], COMMANDS)
        if words[0] in DIFF:
            similar = " (did you mean config diff A B?)"
        return refuse(f"no command {words[0]!r}{similar}, expected one of {', '.join(COMMANDS)}")
    return import_module(f"audiotrain.{COMMANDS[words[0]][0]}").main(words[1:])


if __name__ == "__main__":
    sys.exit(main())
