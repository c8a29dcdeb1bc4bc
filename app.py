"""The page of RankLab: `python app.py`. The file that a Space runs."""

from __future__ import annotations

import sys

OLDEST, NEWEST = (3, 11), (3, 13)


def main() -> int:
    """0 when it was interrupted, 1 where it cannot serve, 2 where a setting cannot be."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        this = ".".join(map(str, sys.version_info[:2]))
        print(f"RankLab needs Python 3.11, 3.12 or 3.13, and this is Python {this}.", file=sys.stderr)
        return 2
    from peft_core.records import InputError
    from peft_core.runs import Refused
    from ui import launch

    try:
        launch()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
