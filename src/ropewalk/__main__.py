"""`python -m ropewalk VERB …`, and what torchrun starts in every process: `-m ropewalk`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
