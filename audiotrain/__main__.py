"""`audiotrain chords …`, `clap …`, `classify …`: the recipes as one command; what compares runs."""

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "chords": "recipes.chords",
    "clap": "recipes.clap",
    "classify": "recipes.classify",
    "runs": "evaluation.report.run_table",
    "report": "evaluation.report.html",
    "config": "evaluation.report.config_diff",
}
"""By name, the module whose `main` takes the words after it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 2 when there is none of that name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] in ([], ["-h"], ["--help"]):
        print(f"usage: audiotrain {'|'.join(COMMANDS)} …   (each has --help)")
        return 0
    if words[0] not in COMMANDS:
        expected = " or ".join(COMMANDS)
        print(f"error: no command {words[0]!r}, expected {expected}", file=sys.stderr)
        return 2
    return import_module(f"audiotrain.{COMMANDS[words[0]]}").main(words[1:])


if __name__ == "__main__":
    sys.exit(main())
