"""`audiotrain chords …`, `clap …`, `classify …`: the recipes as one command; what compares runs."""

import sys
from collections.abc import Sequence
from importlib import import_module

from audiotrain.config import print_commands
from audiotrain.utils.text import nearest

COMMANDS = {
    "chords": ("recipes.chords", "Train and use models that recognise chords."),
    "clap": ("recipes.clap", "Train and use CLAP, which embeds sounds and texts together."),
    "classify": ("recipes.classify", "Train and use classifiers of clips."),
    "runs": ("evaluation.report.run_table", "List runs with their scores."),
    "report": ("evaluation.report.html", "Write a page that shows and compares runs."),
    "config": ("evaluation.report.config_diff", "Print the settings in which two runs differ."),
}
"""By name, the module whose `main` takes the words after it, and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 when there is none of that name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in ([], ["-h"], ["--help"]):
        print_commands("audiotrain", {name: phrase for name, (_, phrase) in COMMANDS.items()})
        return 0
    if words[0] not in COMMANDS:
        expected = f"{nearest(words[0], COMMANDS)}, expected one of {', '.join(COMMANDS)}"
        print(f"error: no command {words[0]!r}{expected}", file=sys.stderr)
        return 2
    return import_module(f"audiotrain.{COMMANDS[words[0]][0]}").main(words[1:])


if __name__ == "__main__":
    sys.exit(main())
