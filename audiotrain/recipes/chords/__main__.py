"""`python -m audiotrain.recipes.chords`."""

import sys

from audiotrain.recipes.chords.commands import main

if __name__ == "__main__":
    sys.exit(main())
