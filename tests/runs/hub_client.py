"""A node with a storage on the Hub, as a process: lines `[method, argument, ...]` in, `[answer]` or a sentence out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from peft_core.runs.storage import Storage

FILES = {"put": 0, "get": 1, "put_folder": 0, "get_folder": 1}
"""Which argument of a method is a path here."""


def main() -> None:
    storage = Storage(sys.argv[1])
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        if method in FILES:
            arguments[FILES[method]] = Path(arguments[FILES[method]])
        try:
            answer = [getattr(storage, method)(*arguments)]
        except OSError as error:
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
