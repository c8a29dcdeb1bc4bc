"""The page of RankLab: `python app.py`. The file that a Space runs."""

from __future__ import annotations

import logging

from peft_core.runs import Refused
from ui import launch

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        launch()
    except Refused as error:  # another server works on the folder, or its store cannot be used
        raise SystemExit(str(error)) from None
