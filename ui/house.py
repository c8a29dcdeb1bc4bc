"""The rules of the house: what a page for strangers, or for oneself, is served with."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from pathlib import Path

from peft_core.records import View, public_mode
from peft_core.runs import Limits, Supervisor
from peft_core.runs.confinement import Confinement
from peft_core.runs.machine import usable_cores
from ui.belongings import Belongings
from ui.engine import Engine
from ui.exports import Exports
from ui.guard import Rules
from ui.origins import names_of, origins_of
from ui.public import PublicRuns, PublicService, VisitorUploads
from ui.public_limits import PublicLimits
from ui.pushes import Pushes
from ui.runs_service import RunsService
from ui.service import Runs, Service
from ui.settings import Settings
from ui.tryit_service import KeptRuns
from ui.uploads import Uploads
from ui.visitors import Visitors, key_of

log = logging.getLogger(__name__)
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "HF_API_TOKEN")
"""Logins of the Hub that the host may have. None is for a visitor."""
WORKER_NICE, WORKER_GB = 10, 8.0
"""Priority and memory of what works for strangers, where the settings say nothing."""


@dataclass(frozen=True)
class House:
    """What the page is served with. limits: of a public page; None on one of one's own."""

    home: Path
    rules: Rules
    limits: PublicLimits | None = None

    @classmethod
    def of(cls, home: Path, settings: Settings, environment: MutableMapping[str, str] = os.environ) -> House:
        """By the settings. From the environment a public page takes out the host's logins of the Hub."""
        origins, framed = origins_of(settings.origins), bool(environment.get("SPACE_ID"))
        if not public_mode():
            # A private Space is no machine of somebody's that a browser could be led to: its name is not looked at.
            names = None if framed else names_of(settings.host, origins)
            return cls(home, Rules(origins=origins, names=names, framed=framed))
        limits, proxies = settings.public_limits, settings.proxies
        visitors = Visitors(key_of(home), (None if framed else 0) if proxies is None else proxies)
        for name in SECRETS:
            environment.pop(name, None)
        said = {
            "RANKLAB_PUBLIC": "1",  # a Space says so only by SPACE_ID, which workers do not get
            "RANKLAB_UPLOADS": str((home / "uploads").resolve()),
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "FORWARDED_ALLOW_IPS": "",  # X-Forwarded-For is read by the setting `proxies` alone
        }
        environment.update(said)
        environment.setdefault("RANKLAB_MAX_MODEL_GB", str(limits.model_gb))
        confined = Confinement(
            nice=WORKER_NICE,
            memory_gb=WORKER_GB,
            cpu_minutes=limits.minutes * usable_cores(),
            network="loading",
        )
        for name, value in confined.to_environment().items():
            environment.setdefault(name, value)
        log.warning("this page is public: visitors see what they share, and change what is their own")
        return cls(home, Rules(limits, visitors, origins, None, framed), limits)

    def within(self, limits: Limits) -> Limits:
        """What the supervisor keeps to."""
        if self.limits is None:
            return limits
        longest = self.limits.minutes * 60
        return replace(limits, total=longest if limits.total is None else min(limits.total, longest))

    def queue(self, most: int) -> int:
        """How many comparisons may wait."""
        return most if self.limits is None else min(most, self.limits.queue)

    def uploads(self) -> Uploads:
        folder = self.home / "uploads"
        return Uploads(folder) if self.limits is None else VisitorUploads(folder, self.limits)

    def services(
        self, supervisor: Supervisor, engine: Engine, example: View | None, exports: Exports, pushes: Pushes
    ) -> Services:
        """The tabs' services, each with as much of the supervisor as its visitors may use."""
        uploads = self.uploads()
        if self.limits is None or not isinstance(uploads, VisitorUploads):
            runs = RunsService(supervisor, exports, pushes)
            return Services(Service(supervisor, engine, example, uploads), runs, supervisor, supervisor, uploads)

        def is_own_data(tasks: str) -> bool:
            return any(engine.task_origin(task.strip()) == "local" for task in tasks.split("+"))

        seen = Belongings(supervisor, is_own_data, self.limits)
        service = PublicService(seen, engine, example, uploads, self.limits)
        return Services(
            service, PublicRuns(seen, exports, pushes, self.limits), seen.only_own(), seen.only_own(), uploads
        )


@dataclass(frozen=True)
class Services:
    """kept: the runs that can be asked. targets: those whose updates can be fitted."""

    service: Service
    runs: RunsService
    kept: KeptRuns
    targets: Runs
    uploads: Uploads
