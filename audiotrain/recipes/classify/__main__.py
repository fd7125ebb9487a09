"""`python -m audiotrain.recipes.classify`."""

import sys

from audiotrain.recipes.classify.commands import main

if __name__ == "__main__":
    sys.exit(main())
