"""Looks up every installed package that the requirements pull in for known vulnerabilities: `make audit`.

pip-audit asks a service on the internet. What it could not look up is named, and counts as not audited.
Exit status: 0 all was looked up and nothing is known, 1 something is, 2 something could not be looked up.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
EXPLAINED: dict[str, str] = {}
"""Vulnerabilities that do not concern this project, by id, with the reason."""
PATIENCE = 600


def pinned(file: Path = ROOT / "requirements.txt") -> list[Requirement]:
    """The requirements that a file lists."""
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def pulled_in(asked: list[Requirement]) -> dict[str, str]:
    """Version by name of the requirements and all that they need, as installed; builds' own marks are left out."""
    found: dict[str, str] = {}
    waiting = [(requirement, frozenset(requirement.extras)) for requirement in asked]
    for requirement, extras in waiting:
        name = canonicalize_name(requirement.name)
        if name in found and not extras:
            continue
        try:
            known = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another system or Python
        found[name] = known.version.partition("+")[0]
        for line in known.requires or ():
            needed = Requirement(line)
            marks = [{"extra": extra} for extra in (extras or {""})]
            if (needed.marker is None or any(map(needed.marker.evaluate, marks))) and (
                canonicalize_name(needed.name) not in found
            ):
                waiting.append((needed, frozenset(needed.extras)))
    return found


def told(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Exit status and sentences of pip-audit's report."""
    entries = report["dependencies"]
    skipped = [entry["name"] for entry in entries if "skip_reason" in entry]
    known = [(entry, flaw) for entry in entries for flaw in entry.get("vulns", ())]
    lines, open_ones = [], 0
    for entry, flaw in known:
        names = {flaw["id"], *flaw.get("aliases", ())}
        reason = next((EXPLAINED[name] for name in names if name in EXPLAINED), "")
        open_ones += not reason
        fixed = ", ".join(flaw.get("fix_versions", ())) or "no version"
        lines.append(f"{entry['name']} {entry['version']}: {flaw['id']}, fixed in {fixed}. {reason}".rstrip())
    if skipped:
        shown = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
        lines.append(
            f"{len(skipped)} of {len(entries)} packages could not be looked up ({shown}): they are not audited."
        )
    if not open_ones and not skipped:
        lines.append(f"{len(entries)} packages were looked up; no vulnerability is known that is not explained.")
    return (1 if open_ones else 2 if skipped else 0), lines


def main() -> int:
    found = pulled_in(pinned())
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "installed.txt"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in sorted(found.items())))
        command = [sys.executable, "-m", "pip_audit", "-r", str(listed), "--no-deps", "--disable-pip", "-f", "json"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            print(f"Nothing was audited: the service did not answer within {PATIENCE} seconds.", file=sys.stderr)
            return 2
    if not done.stdout.strip():
        last = re.sub(r"\s+", " ", done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no answer")
        print(f"Nothing was audited: {last[:300]}", file=sys.stderr)
        return 2
    status, lines = told(json.loads(done.stdout))
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
