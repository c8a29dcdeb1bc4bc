"""What the owner of a server sets: by the environment, or in a file `ranklab.toml`; the environment wins.

A setting `upload_mib` is the variable RANKLAB_UPLOAD_MIB and the key `upload_mib` of the file; a limit of a public page
`steps` is RANKLAB_PUBLIC_STEPS, and a key of the file's table `[public_limits]`. What other rooms read from the
environment themselves is put there from the file (`Settings.publish`), so that there is one answer.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field, field_validator

from peft_core.records import Frozen, InputError, checked
from peft_core.runs import Limits
from ui.origins import origins_of
from ui.passwords import accounts_of
from ui.public_limits import PublicLimits
from ui.uploads import FILE_MIB, MIB, TOTAL_MIB

FILE = "ranklab.toml"
PREFIX = "RANKLAB_"
TABLE = "public_limits"
ALIASES = {"host": "GRADIO_SERVER_NAME", "port": "GRADIO_SERVER_PORT"}
"""Variables of Gradio's that count where ours is not set: a Space sets them."""
ELSEWHERE = (
    "home",
    "public",
    "data",
    "max_model_gb",
    "upload_mib",
    "uploads_mib",
    "log_level",
    "log_format",
    "worker_nice",
    "worker_memory_gb",
    "worker_cpu_minutes",
    "worker_network",
)
"""Settings that other rooms, or worker processes, read from the environment."""
SECRET = ("auth",)
"""Never shown, not even where they are wrong."""
LARGEST = 2**20
WORDS = {"valid boolean": "it must be true or false (1 or 0)", "valid string": "it must be a text"}
"""For what pydantic says in words of its own."""
_DEFAULT = Limits()
T = TypeVar("T", bound=Frozen)


class Settings(Frozen):
    """Everything that a server can be told. None: nothing was said."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 is all of them")
    port: int = Field(7860, ge=0, le=65535, description="0 takes a free one")
    home: str | None = Field(
        None, min_length=1, description="folder of the store; without it the user's data folder, on a Space its disk"
    )
    public: bool | None = Field(None, description="strangers use this page; without it only a Space is public")
    auth: str | None = Field(None, min_length=1, repr=False, description="a login before the page: name:password,...")
    auth_file: str | None = Field(None, min_length=1, description="the same from a file, name:password a line")
    origins: str | None = Field(
        None,
        min_length=1,
        description="other sites whose pages may ask, and other names of this one: https://a.b,...",
    )
    proxies: int | None = Field(
        None,
        ge=0,
        le=20,
        description="proxies in front that add to X-Forwarded-For; without it none, on a Space its own",
    )
    executor: Literal["auto", "process", "thread", "ray", "zerogpu"] = Field(
        "auto", description="what trains; auto is process, on ZeroGPU hardware zerogpu; ray: docs/cluster.md"
    )
    gpu_seconds: int = Field(60, ge=10, le=600, description="length of a call for a GPU on ZeroGPU hardware")
    concurrency: int = Field(1, ge=1, le=64, description="comparisons that train at once")
    max_queue: int = Field(20, ge=0, le=10_000, description="comparisons that may wait")
    max_minutes: float | None = Field(None, gt=0, le=LARGEST, description="the longest that a comparison may train")
    free_mib: float = Field(
        _DEFAULT.free / MIB, ge=0, le=LARGEST, description="room on the disk without which nothing is started, in MiB"
    )
    upload_mib: float = Field(FILE_MIB, gt=0, le=LARGEST, description="the largest uploaded file, in MiB")
    uploads_mib: float = Field(TOTAL_MIB, gt=0, le=LARGEST, description="all uploaded files together, in MiB")
    max_model_gb: float | None = Field(None, gt=0, le=LARGEST, description="the largest weights that are loaded, in GB")
    worker_nice: int | None = Field(
        None, ge=0, le=19, description="added to the priority's number of what trains; without it 0, if public 10"
    )
    worker_memory_gb: float | None = Field(
        None, gt=0, le=LARGEST, description="GB of memory of a process that trains; without it all, if public 8"
    )
    worker_cpu_minutes: float | None = Field(
        None,
        gt=0,
        le=LARGEST,
        description="its processor time; without it any, if public `minutes` of all cores",
    )
    worker_network: Literal["any", "loading"] | None = Field(
        None,
        description="loading: the Hub's, proxies' and name servers' TCP ports alone; without it any, if public loading",
    )
    data: str | None = Field(None, min_length=1, description="folder or zip with rows of the public benchmarks")
    metrics: bool | None = Field(None, description="whether /metrics answers; without it on a page that is not public")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    log_format: Literal["text", "json"] = Field("text", description="json: one object a line")
    public_limits: PublicLimits = Field(PublicLimits(), description="how much a public page takes")

    @field_validator("auth")
    @classmethod
    def _accounts(cls, auth: str | None) -> str | None:
        accounts_of(auth, None)
        return auth

    @field_validator("auth_file")
    @classmethod
    def _account_file(cls, file: str | None) -> str | None:
        accounts_of(None, file)
        return file

    @field_validator("origins")
    @classmethod
    def _origins(cls, text: str | None) -> str | None:
        origins_of(text)
        return text

    def limits(self) -> Limits:
        """What the supervisor keeps to."""
        total = None if self.max_minutes is None else 60 * self.max_minutes
        return Limits(total=total, free=int(self.free_mib * MIB))

    def publish(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Put what was set, and is read elsewhere, into the environment."""
        environment = os.environ if environment is None else environment
        for name in ELSEWHERE:
            if name in self.model_fields_set and (value := getattr(self, name)) is not None:
                environment[variable(name)] = str(int(value)) if isinstance(value, bool) else str(value)


def variable(name: str, table: str = "") -> str:
    """The environment variable of a setting, or of one in a table of the file."""
    return PREFIX + ("PUBLIC_" if table else "") + name.upper()


def load(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Settings:
    """The settings of this server.

    Args:
        environment: default: that of this process. folder: where the file may lie; default: the current one.

    Raises:
        InputError: a value that cannot be, at its variable or its file; nothing has been started then.
    """
    environment = os.environ if environment is None else environment
    path = _file(environment, folder or Path.cwd())
    written = _read(path) if path else {}
    limits = _checked(PublicLimits, written.pop(TABLE, {}), path, environment, TABLE)
    settings = _checked(Settings, written, path, environment)
    return settings.model_copy(update={TABLE: limits}) if limits.model_fields_set else settings


def _checked(
    kind: type[T], written: dict[str, Any], path: Path | None, environment: Mapping[str, str], table: str = ""
) -> T:
    """A model of what is written, in a table of the file, and what the environment says."""
    within = f"{table}." if table else ""
    given: dict[str, tuple[Any, str]] = {name: (value, f"{within}{name} in {path}") for name, value in written.items()}
    for name in kind.model_fields.keys() - {TABLE}:
        for asked in (variable(name, table), ALIASES.get(name, "")):
            if text := environment.get(asked, "").strip():
                given[name] = (text, asked)
                break
    try:
        return checked(kind, {name: value for name, (value, _) in given.items()})
    except InputError as error:
        value = "(not shown)" if error.field in SECRET else error.value
        allowed = next((words for said, words in WORDS.items() if said in error.allowed), error.allowed)
        raise InputError(given[error.field][1], value, allowed) from None


def _file(environment: Mapping[str, str], folder: Path) -> Path | None:
    """RANKLAB_CONFIG, which has to be there; else the first of `folder` and RANKLAB_HOME that has one."""
    if named := environment.get("RANKLAB_CONFIG", "").strip():
        path = Path(named).expanduser()
        if not path.is_file():
            raise InputError("RANKLAB_CONFIG", named, "there is no such file")
        return path
    home = environment.get("RANKLAB_HOME", "").strip()
    places = [folder, *([Path(home).expanduser()] if home else [])]
    return next((place / FILE for place in places if (place / FILE).is_file()), None)


def _read(path: Path) -> dict[str, Any]:
    """The file's keys. Texts are trimmed and an empty one says nothing, as in the environment."""
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("the settings file", str(path), f"it cannot be read: {_sentence(error)}") from None
    table = read.get(TABLE, {})
    if not isinstance(table, dict):
        raise InputError(f"{TABLE} in {path}", table, "it must be a table, [public_limits]")
    said = _said(Settings, {name: value for name, value in read.items() if name != TABLE}, path)
    return said | {TABLE: _said(PublicLimits, table, path, TABLE + ".")}


def _said(kind: type[Frozen], read: dict[str, Any], path: Path, within: str = "") -> dict[str, Any]:
    for name, value in read.items():
        if name not in kind.model_fields:
            continue
        if not isinstance(value, str | int | float):
            raise InputError(f"{within}{name} in {path}", "a list or a table", "it must be one value")
        if isinstance(value, bool) and bool not in get_args(kind.model_fields[name].annotation):
            raise InputError(f"{within}{name} in {path}", str(value).lower(), "it must be a number or a text")
    return {name: value for name, value in read.items() if not (isinstance(value, str) and not value.strip())}


def _sentence(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
