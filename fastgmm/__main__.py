"""``python -m fastgmm``: the same as the command ``fastgmm``."""

import sys

from fastgmm.cli import main

if __name__ == "__main__":
    sys.exit(main())
