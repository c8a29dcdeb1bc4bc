"""The page. The only room that imports gradio."""

from __future__ import annotations

from typing import Any


def launch(host: str | None = None, port: int | None = None) -> None:
    """Serve until interrupted, as `ui.settings` says. host, port: instead of what is set.

    Raises:
        InputError: a setting that cannot be. Refused: the folder of the store cannot be used. Nothing was started.
    """
    from peft_core.records import checked
    from peft_core.runs.logs import configure
    from ui.settings import Settings, load

    settings = load()
    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = checked(Settings, settings.model_dump(exclude_unset=True) | given)
    settings.publish()
    configure(settings.log_level, settings.log_format)
    from ui.launching import launch as serve

    serve(settings)
