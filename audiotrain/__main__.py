"""`audiotrain chords …`, `audiotrain clap …`: the recipes as one command."""

import sys
from collections.abc import Sequence

RECIPES = ("chords", "clap")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a recipe; 2 when there is none of that name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["chords"]:
        from audiotrain.recipes import chords

        return chords.main(words[1:])
    if words[:1] == ["clap"]:
        from audiotrain.recipes import clap

        return clap.main(words[1:])
    if words[:1] in ([], ["-h"], ["--help"]):
        print(f"usage: audiotrain {'|'.join(RECIPES)} …   (each has --help)")
        return 0
    print(f"error: no recipe {words[0]!r}, expected {' or '.join(RECIPES)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
