"""`python -m audiotrain.recipes.clap`."""

import sys

from audiotrain.recipes.clap.commands import main

if __name__ == "__main__":
    sys.exit(main())
