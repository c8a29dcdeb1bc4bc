"""Carries out a Dockerfile without a Docker engine: its commands run, one after the other, in a Debian root.

    python scripts/replay_dockerfile.py /tmp/root --light
    python scripts/replay_dockerfile.py /tmp/root --build-arg TORCH_INDEX=URL --bind /with/wheels -- python app.py

The root is made by debootstrap, so this needs root rights, Debian's `debootstrap`, and its mirror. The Python of the
base image is Debian's own of the same version. Networks, layers and limits of a container are not imitated; users,
folders, environment, the files that are copied and what the commands make of them are. Instructions that it does not
know are refused.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

SUITES = {"3.11": "bookworm", "3.13": "trixie"}
"""Debian releases by the Python that they come with."""
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
KNOWN = ("FROM", "ARG", "ENV", "RUN", "USER", "WORKDIR", "COPY", "VOLUME", "EXPOSE", "HEALTHCHECK", "CMD")
HEAVY = "# replay: heavy"
PASSED = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""What the commands see of this machine's environment: where pip finds packages."""
_NAME = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class Refused(ValueError):
    """A Dockerfile that cannot be replayed, in one sentence."""


@dataclass(frozen=True)
class Step:
    """One instruction. heavy: marked by the comment above it."""

    name: str
    text: str
    heavy: bool
    line: int


@dataclass
class Image:
    """What the instructions have made so far. root: the folder that is the container's /."""

    root: Path
    context: Path
    binds: tuple[Path, ...] = ()
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    arguments: dict[str, str] = field(default_factory=dict)
    user: str = "root"
    folder: str = "/"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)


def parse(text: str) -> list[Step]:
    """The instructions in their order.

    Raises:
        Refused: one that is not known, or a form of one that is not.
    """
    steps: list[Step] = []
    heavy, joined, start = False, "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip().startswith("#"):
            heavy = heavy or line.strip() == HEAVY
            continue
        if not line.strip() and not joined:
            continue
        start = start or number
        joined += line.strip()
        if joined.endswith("\\"):
            joined = joined[:-1].rstrip() + " "
            continue
        name, _, rest = joined.partition(" ")
        steps.append(Step(name.upper(), rest.strip(), heavy, start))
        heavy, joined, start = False, "", 0
    if joined:
        raise Refused("The Dockerfile ends in the middle of an instruction.")
    _check(steps)
    return steps


def _check(steps: list[Step]) -> None:
    for step in steps:
        where = f"Line {step.line}: "
        if step.name not in KNOWN:
            raise Refused(f"{where}{step.name} is not known here; there are {', '.join(KNOWN)}.")
        if "<<" in step.text or step.text.startswith("--mount"):
            raise Refused(f"{where}here-documents and mounts are not known here.")
        flags = [word for word in step.text.split() if word.startswith("--")] if step.name == "COPY" else []
        if any(not flag.startswith("--chown=") for flag in flags):
            raise Refused(f"{where}COPY takes --chown alone here.")
        if step.name in ("CMD", "HEALTHCHECK") and not step.text.partition("CMD ")[2 * (step.name == "HEALTHCHECK")]:
            raise Refused(f"{where}{step.name} needs a command.")
    if [step.name for step in steps].count("FROM") != 1 or next(s.name for s in steps if s.name != "ARG") != "FROM":
        raise Refused("Exactly one FROM is known here, at the beginning.")


def replay(steps: list[Step], image: Image, *, light: bool) -> None:
    """Carry out the instructions. light: those marked as heavy are left out."""
    for step in steps:
        if light and step.heavy:
            print(f"left out: {step.name} {step.text}", flush=True)
            continue
        print(f"{step.name} {step.text}", flush=True)
        ACTIONS[step.name](image, step)


def _from(image: Image, step: Step) -> None:
    match = re.fullmatch(r"python:(\d+\.\d+)(?:\.\d+)?-slim(?:-\w+)?", step.text)
    if match is None or match[1] not in SUITES:
        raise Refused(f"Line {step.line}: the base has to be python:VERSION-slim with one of {', '.join(SUITES)}.")
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITES[match[1]], str(image.root)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    for name in ("resolv.conf", "hosts"):
        shutil.copy(Path("/etc") / name, image.root / "etc" / name)
    made = image.root / "usr" / "local" / "bin" / "python"
    made.symlink_to("/usr/bin/python3")


def _arg(image: Image, step: Step) -> None:
    name, _, default = step.text.partition("=")
    image.arguments.setdefault(name, _unquoted(default))


def _env(image: Image, step: Step) -> None:
    pairs = re.findall(r'(\w+)=("[^"]*"|\S*)', step.text)
    if not pairs:
        raise Refused(f"Line {step.line}: ENV takes NAME=VALUE here.")
    known = image.arguments | image.environment
    image.environment |= {name: _filled(_unquoted(value), known) for name, value in pairs}


def _run(image: Image, step: Step) -> None:
    done = run(image, ["/bin/sh", "-c", step.text])
    if done.returncode:
        raise Refused(f"Line {step.line}: the command ended with {done.returncode}.")


def _user(image: Image, step: Step) -> None:
    image.user = step.text


def _workdir(image: Image, step: Step) -> None:
    image.folder = str(Path(image.folder) / _filled(step.text, image.environment))
    _inside(image, image.folder).mkdir(parents=True, exist_ok=True)


def _copy(image: Image, step: Step) -> None:
    words = step.text.split()
    owner = next((word.partition("=")[2] for word in words if word.startswith("--")), "root:root")
    *sources, target = [word for word in words if not word.startswith("--")]
    place = _inside(image, str(Path(image.folder) / target))
    user, group = ids(image.root, owner)
    for source in sources:
        origin = image.context / source
        files = copied(image.context, origin) if origin.is_dir() else [origin]
        for file in files:
            to = place / file.relative_to(origin) if origin.is_dir() else place / file.name
            for folder in [folder for folder in reversed(to.parents) if not folder.exists()]:
                folder.mkdir()
                os.chown(folder, user, group)
            shutil.copy(file, to)
            os.chown(to, user, group)


def _cmd(image: Image, step: Step) -> None:
    image.command = json.loads(step.text)


def _health(image: Image, step: Step) -> None:
    image.health = json.loads(step.text.partition("CMD ")[2])


def _expose(image: Image, step: Step) -> None:
    image.ports.append(int(step.text))


def _volume(image: Image, step: Step) -> None:
    image.volumes.append(step.text)
    _inside(image, step.text).mkdir(parents=True, exist_ok=True)


ACTIONS = {
    "FROM": _from, "ARG": _arg, "ENV": _env, "RUN": _run, "USER": _user, "WORKDIR": _workdir, "COPY": _copy,
    "CMD": _cmd, "HEALTHCHECK": _health, "EXPOSE": _expose, "VOLUME": _volume,
}  # fmt: skip


def inside(image: Image, command: list[str], more: dict[str, str] | None = None) -> list[str]:
    """The command line that runs a command in the image as its user, with mounts that end with it."""
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED)}
    environment = {**passed, **image.arguments, **image.environment, **(more or {})}
    root = str(image.root)
    mounts = ['mount -t proc proc "$1/proc"', 'mount --rbind /dev "$1/dev"']
    for bind in image.binds:
        _inside(image, str(bind)).mkdir(parents=True, exist_ok=True)
        mounts.append(f'mount --rbind -o ro "{bind}" "$1{bind}"')
    script = " && ".join([*mounts, 'root="$1"; user="$2"; shift 2; exec chroot --userspec="$user" "$root" "$@"'])
    listed = [f"{name}={value}" for name, value in environment.items()]
    change = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', image.folder]
    user, group = ids(image.root, image.user)
    start = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh", root, f"{user}:{group}"]
    return [*start, "/usr/bin/env", "-i", *listed, *change, *command]


def run(image: Image, command: list[str], *, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command in the image as its user. quiet: keep what it writes."""
    return subprocess.run(inside(image, command), capture_output=quiet, text=True)


def copied(context: Path, folder: Path) -> list[Path]:
    """The files of a folder that `.dockerignore` lets through."""
    ignore = context / ".dockerignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.exists() else []
    patterns = [line.strip().strip("/") for line in lines if line.strip() and not line.startswith("#")]
    if any(pattern.startswith("!") for pattern in patterns):
        raise Refused("Exceptions in .dockerignore are not known here.")
    found = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not ignored(here / name, context, patterns))
        found += [here / name for name in sorted(files) if not ignored(here / name, context, patterns)]
    return [file for file in found if not file.is_symlink()]


def ignored(path: Path, context: Path, patterns: list[str]) -> bool:
    """Whether a pattern names the path: from the context's root, or with `**/` anywhere."""
    name = path.relative_to(context).as_posix()
    return any(
        fnmatch.fnmatch(path.name, pattern[3:]) if pattern.startswith("**/") else _matches(name, pattern)
        for pattern in patterns
    )


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatch.fnmatch(name, pattern)


def ids(root: Path, owner: str) -> tuple[int, int]:
    """The numbers of a user and a group, by the files of the root."""
    user, _, group = owner.partition(":")
    users = {line.split(":")[0]: line.split(":") for line in (root / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":") for line in (root / "etc/group").read_text().splitlines()}
    if user not in users or (group and group not in groups):
        raise Refused(f"There is no user or group {owner!r} in the image.")
    return int(users[user][2]), int(groups[group][2] if group else users[user][3])


def _inside(image: Image, path: str) -> Path:
    return image.root / path.lstrip("/")


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _filled(text: str, known: dict[str, str]) -> str:
    return _NAME.sub(lambda match: known.get(match[1] or match[2], ""), text)


def why_not() -> str:
    """Why nothing can be replayed here, or nothing."""
    if os.geteuid() != 0:
        return "it needs root rights"
    missing = [name for name in ("debootstrap", "unshare", "chroot") if shutil.which(name) is None]
    return f"there is no {missing[0]}" if missing else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a folder to make the root in; it must not be there")
    parser.add_argument("--dockerfile", type=Path, default=Path(__file__).parents[1] / "Dockerfile")
    parser.add_argument("--light", action="store_true", help=f"leave out what stands under '{HEAVY}'")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--bind", action="append", default=[], type=Path, help="a folder to be seen inside, unchanged")
    parser.epilog = "Behind -- stands what to run in the image as its user, if anything."
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, command = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    if said := why_not():
        print(f"Nothing can be replayed here: {said}.", file=sys.stderr)
        return 2
    if options.root.exists():
        print(f"{options.root} is there already.", file=sys.stderr)
        return 2
    arguments = dict(text.partition("=")[::2] for text in options.build_arg)
    image = Image(options.root.resolve(), options.dockerfile.resolve().parent, tuple(options.bind), arguments=arguments)
    try:
        replay(parse(options.dockerfile.read_text(encoding="utf-8")), image, light=options.light)
    except (Refused, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return run(image, command).returncode if command else 0


if __name__ == "__main__":
    sys.exit(main())
