"""Takes the README's picture of the page: `python -m tests.browser.take_pictures`.

The page shows the shipped example, so the picture is the same on every machine up to its fonts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import CHROMIUM_ARGUMENTS, ROOT, free_port, wait_until_served

PICTURES = ROOT / "assets" / "pictures"


def picture(address: str, target: Path, width: int = 1440, height: int = 1270, theme: str = "light") -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS)
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(f"{address}?__theme={theme}")
        page.wait_for_function("document.querySelectorAll('.rl-plot .scatterlayer').length >= 3")
        page.wait_for_function("document.querySelector('.rl-budget')?.textContent", timeout=60_000)
        page.wait_for_timeout(800)
        page.screenshot(path=target)
        browser.close()


def main() -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "RANKLAB_HOME": home, "GRADIO_SERVER_PORT": str(port)}
        log = Path(home) / "log"
        with log.open("wb") as output:
            command = [sys.executable, str(ROOT / "app.py")]
            process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_until_served(address, process, log)
            PICTURES.mkdir(exist_ok=True)
            picture(address, PICTURES / "compare.png")
        finally:
            process.terminate()
            process.wait(15)


if __name__ == "__main__":
    main()
