"""`audiotrain chords …`, `audiotrain clap …`: the recipes as one command; `runs`, `report`."""

import sys
from collections.abc import Sequence

RECIPES = ("chords", "clap")
OTHERS = ("runs", "report")  # of the runs that recipes leave


def main(argv: Sequence[str] | None = None) -> int:
    """Run a recipe; 2 when there is none of that name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["chords"]:
        from audiotrain.recipes import chords

        return chords.main(words[1:])
    if words[:1] == ["clap"]:
        from audiotrain.recipes import clap

        return clap.main(words[1:])
    if words[:1] == ["runs"]:
        from audiotrain import run_table

        return run_table.main(words[1:])
    if words[:1] == ["report"]:
        from audiotrain import html_report

        return html_report.main(words[1:])
    if words[:1] in ([], ["-h"], ["--help"]):
        print(f"usage: audiotrain {'|'.join(RECIPES + OTHERS)} …   (each has --help)")
        return 0
    expected = " or ".join(RECIPES + OTHERS)
    print(f"error: no command {words[0]!r}, expected {expected}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
