"""Command line of the town: ``python3 -m datasets.town``."""

import sys

from datasets.town.make import main

if __name__ == "__main__":
    sys.exit(main())
