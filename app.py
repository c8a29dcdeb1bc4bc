"""The page of RankLab: `python app.py`. The file that a Space runs."""

from __future__ import annotations

import logging

from ui import launch

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    launch()
