"""``python -m peft_core``."""

import sys

from peft_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
