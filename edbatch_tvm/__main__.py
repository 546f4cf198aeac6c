"""``python -m edbatch_tvm``: the command line."""

import sys

from edbatch_tvm.cli import main

if __name__ == "__main__":
    sys.exit(main())
