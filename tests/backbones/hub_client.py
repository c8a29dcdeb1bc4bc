"""A process that asks for models of the Hub: a JSON line of a question in, one of an answer out.

The Hub's own client reads its environment when it is imported, so it cannot be asked from the tests' process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

from peft_core.backbones import _hub, _hub_calls, _hub_transfer, check_model, fetch_model, model_info
from peft_core.records import InputError


def answer(what: str, model: str, commit: str | None) -> dict[str, Any]:
    """What `fetch_model`, `check_model` or `model_info` gives, or the sentence of a refusal."""
    heard: list[tuple[float, str]] = []
    try:
        if what == "check":
            check_model(model)
            return {}
        if what == "check twice":
            with suppress(InputError):
                check_model(model)
            check_model(model)
            return {}
        if what == "info":
            info = model_info(model)
            return {
                name: getattr(info, name) for name in ("origin", "available", "parameters", "license", "max_length")
            }
        source = fetch_model(model, commit, lambda share, sentence: heard.append((share, sentence)))
        files = sorted(file.name for file in source.folder.iterdir())
        return {**source.described(), "pinned": source.id, "said": source.said, "files": files, "heard": heard}
    except InputError as error:
        return {"error": str(error), "field": error.field, "heard": heard}


class Client:
    """The other side: starts the process and asks it."""

    def __init__(self, environment: dict[str, str], **where: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.backbones.hub_client"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **where,
        )

    def __call__(
        self, what: str, model: str, commit: str | None = None, environment: dict[str, str] | None = None
    ) -> Any:
        """A fresh question: nothing that the process knows of the Hub is left. environment: for this one question."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, model, commit, environment or {}]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)


def main() -> None:
    _hub_calls.PAUSE, _hub_calls.MAX_PAUSE = 0.01, 0.02
    _hub.TIMEOUT = _hub_transfer.TIMEOUT = 1.0
    for line in sys.stdin:
        what, model, commit, environment = json.loads(line)
        _hub._known.clear()
        os.environ |= environment
        print(json.dumps(answer(what, model, commit)), flush=True)
        for name in environment:
            del os.environ[name]


if __name__ == "__main__":
    main()
