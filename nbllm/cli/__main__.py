"""`python -m nbllm.cli`."""

import sys

from nbllm.cli import main

if __name__ == "__main__":
    sys.exit(main())
