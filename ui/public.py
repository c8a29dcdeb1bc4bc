"""The tabs' services on a public page: sizes are capped, and what is a visitor's own is for that visitor alone."""

from __future__ import annotations

import functools
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peft_core.records import UPLOAD, ComparisonSpec, InputError, View, upload_path
from peft_core.runs import Refused
from ui.belongings import Belongings
from ui.engine import Engine
from ui.exports import Exports
from ui.form import Look
from ui.logins import Login
from ui.public_limits import PublicLimits, check_size
from ui.pushes import Pushes, Wanted
from ui.quotas import Tally
from ui.runs_service import RunsService
from ui.service import EXAMPLE, Service
from ui.uploads import MIB, Uploads, limit_of, mib, size_of
from ui.visitors import Visitor, current

BUSY = "You have one of these under way already, or your network has many; try again when it has ended."
MOST_AT_WORK, KEPT_JOBS = 8, 1000


class VisitorUploads(Uploads):
    """Uploads by visitor, `ADDRESS-VISITOR/CONTENT/NAME` in the folder; called ``upload:...`` and never by a path."""

    def __init__(self, folder: Path, limits: PublicLimits) -> None:
        file_limit = limit_of("RANKLAB_UPLOAD_MIB", limits.upload_mib)
        super().__init__(folder, file_limit, limit_of("RANKLAB_UPLOADS_MIB", limits.uploads_mib))
        self._limits = limits

    def task_of(self, path: Path) -> str:
        return UPLOAD + path.relative_to(self.folder).as_posix()

    def room(self) -> Path:
        visitor = current()
        if not visitor.id:
            raise Refused("Nothing can be uploaded from here, for this browser keeps no cookie of the page.")
        return self.folder / f"{visitor.address}-{visitor.id}"

    def holds(self, task: str) -> bool:
        """Whether a task is a file of whoever asks. A look at it keeps it for longer."""
        path = upload_path(task)
        if path is None or not current().id or not path.parts[-3].endswith(f"-{current().id}") or not path.is_file():
            return False
        os.utime(path)
        return True

    def check_room(self, size: int, counted: int = 0) -> None:
        self.sweep_old()
        super().check_room(size, counted)
        visitor, own, here = current(), size, size
        for room in self.folder.glob(f"{visitor.address}-*"):
            kept = size_of(room)
            here += kept
            own += kept if room == self.room() else 0
        for taken, most, whose in (
            (own, self._limits.visitor_uploads_mib * MIB, "one visitor"),
            (here, self._limits.address_uploads_mib * MIB, "one network"),
        ):
            if taken > most:
                raise Refused(f"{mib(most)} of uploads are the most that {whose} may have here for the time being.")

    def sweep_old(self) -> None:
        """Remove what nobody has used for long."""
        oldest = time.time() - self._limits.upload_hours * 3600
        for file in self.folder.glob("*-*/*/*"):
            if file.stat().st_mtime < oldest:
                shutil.rmtree(file.parent, ignore_errors=True)


class PublicService(Service):
    """The Compare tab for one visitor at a time."""

    def __init__(
        self, runs: Belongings, engine: Engine, example: View | None, uploads: VisitorUploads, limits: PublicLimits
    ) -> None:
        super().__init__(runs, engine, example, uploads)
        self._own, self._limits = runs, limits
        self._looks = Tally(limits.visitor_jobs, limits.address_jobs, MOST_AT_WORK, BUSY)

    def view(
        self, wanted: str | None, after: int = 0, reference: str | None = None, table: bool = False
    ) -> dict[str, Any]:
        shown = super().view(wanted, after, reference, table)
        known = shown["id"] is not None and shown["id"] != EXAMPLE
        return shown | {"own": not known or self._own.owns(shown["id"])}

    def catalogue(self) -> dict[str, Any]:
        return super().catalogue() | {"limits": self._limits.model_dump(mode="json")}

    def preview(self, look: Look) -> dict[str, Any]:
        with self._looks.at(current()):
            return super().preview(look)

    def check(self, spec: ComparisonSpec) -> None:
        check_size(spec, self._limits)

    def download(self, comparison_id: str, kind: str, reference: str | None = None) -> tuple[str, str, str]:
        if comparison_id != EXAMPLE:
            self._own.check_own(comparison_id)
        return super().download(comparison_id, kind, reference)


class PublicRuns(RunsService):
    """The Runs tab for one visitor at a time."""

    def __init__(self, runs: Belongings, exports: Exports, pushes: Pushes, limits: PublicLimits) -> None:
        super().__init__(runs, exports, pushes)
        self._own = runs
        self._work = Tally(limits.visitor_jobs, limits.address_jobs, MOST_AT_WORK, BUSY)
        self._lock = threading.Lock()
        self._asked: OrderedDict[str, Visitor] = OrderedDict()
        """Who asked for the newest jobs."""
        self._counted: set[str] = set()
        """Those of them that had not ended when somebody last looked."""

    def run(self, run: str, login: Login) -> dict[str, Any]:
        """As for the owner; of a run of others what it measured alone."""
        shown, own = super().run(run, login), self._own.owns(run)
        return shown | {"fixed": not own} | ({} if own else {"formats": [], "resumable": False})

    def export(self, run: str, kind: str) -> dict[str, Any]:
        self._own.check_own(run)
        return self._begun(functools.partial(super().export, run, kind))

    def push(self, wanted: Wanted, token: str, login: Login) -> dict[str, Any]:
        self._own.check_own(wanted.run)
        return self._begun(functools.partial(super().push, wanted, token, login))

    def export_state(self, job: str) -> dict[str, Any]:
        self._check_asked(job)
        return super().export_state(job)

    def archive(self, job: str) -> tuple[Path, str]:
        self._check_asked(job)
        return super().archive(job)

    def push_state(self, job: str) -> dict[str, Any]:
        self._check_asked(job)
        return super().push_state(job)

    def _check_asked(self, job: str) -> None:
        asked = self._asked.get(job)
        if asked is None or not current().id or asked.id != current().id:
            raise InputError("job", job, "there is no such export or push any more; ask for it again")

    def _begun(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Begin a job that counts as the visitor's until it has ended."""
        visitor = current()
        with self._lock:
            for job in [job for job in self._counted if not self._waits(job)]:
                self._counted.discard(job)
                self._work.leave(self._asked[job])
            with self._work.at(visitor):
                begun = work()
            job = str(begun["job"])
            self._asked[job] = visitor
            if job not in self._counted:
                self._counted.add(job)
                self._work.enter(visitor)
            while len(self._asked) > KEPT_JOBS and next(iter(self._asked)) not in self._counted:
                self._asked.popitem(last=False)
        return begun

    def _waits(self, job: str) -> bool:
        for states in (self._exports, self._pushes):
            try:
                return states.job(job).state == "waiting"
            except InputError:
                continue
        return False
