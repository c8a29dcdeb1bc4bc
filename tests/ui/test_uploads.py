"""Files of visitors: what is kept, what is refused, and that nothing else is left."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from peft_core.records import InputError
from peft_core.runs.errors import DiskFull, Refused
from ui.uploads import Uploads, limit_of

TABLE = b"text,label\ngood,1\nbad,0\n"


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


def receive(uploads: Uploads, name: str, *data: bytes, announced: int | None = None) -> Path:
    return asyncio.run(uploads.receive(name, pieces(*data), announced))


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", file_limit=10_000, total_limit=50_000)


def left(uploads: Uploads) -> list[str]:
    return sorted(path.name for path in uploads.folder.rglob("*"))


def test_a_file_is_kept_under_its_content(uploads: Uploads) -> None:
    path = receive(uploads, "Reviews of May.CSV", TABLE[:7], TABLE[7:])
    assert path.read_bytes() == TABLE
    assert path.name == "Reviews_of_May.csv"
    assert path.parent.name == hashlib.sha256(TABLE).hexdigest()[:40]
    assert uploads.holds(str(path))


def test_equal_files_are_one_unless_they_are_read_in_another_way(uploads: Uploads) -> None:
    first = receive(uploads, "a.csv", TABLE)
    assert receive(uploads, "b.csv", TABLE) == first
    other = receive(uploads, "b.txt", TABLE)
    assert other.name == "b.txt" and other.parent == first.parent
    assert left(uploads) == sorted([first.parent.name, "a.csv", "b.txt"])


NAMES = ["../../etc/passwd.csv", "/etc/x.csv", "..\\..\\x.csv", "...csv", "a/../../b.csv", "x\x00y.csv", "‮gpj.csv"]


@pytest.mark.parametrize("name", [*NAMES, "+".join("ab") + ".csv", "ж" * 300 + ".csv", "<script>.csv"])
def test_a_name_never_leaves_the_folder(uploads: Uploads, name: str) -> None:
    path = receive(uploads, name, TABLE)
    assert path.parent.parent == uploads.folder
    assert path.suffix == ".csv" and path.stem and not path.name.startswith(".")
    assert not set("+<>/\\\x00‮") & set(path.name)


@pytest.mark.parametrize("name", ["x.exe", "x.py", "x", "", "x.csv.exe", "x.tar.gz", "x.xlsx"])
def test_other_endings_are_refused(uploads: Uploads, name: str) -> None:
    with pytest.raises(InputError, match=r"a table ends in \.csv"):
        receive(uploads, name, TABLE)
    assert left(uploads) == []


def test_a_file_past_the_limit_leaves_nothing(uploads: Uploads) -> None:
    with pytest.raises(InputError, match="larger than"):
        receive(uploads, "x.csv", b"x" * 6000, b"x" * 6000)
    with pytest.raises(InputError, match="larger than"):
        receive(uploads, "x.csv", announced=10_001)
    with pytest.raises(InputError, match="empty"):
        receive(uploads, "x.csv")
    assert left(uploads) == []


def test_an_upload_that_breaks_off_leaves_nothing(uploads: Uploads) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield TABLE
        raise ConnectionResetError

    with pytest.raises(Refused, match="could not be kept"):
        asyncio.run(uploads.receive("x.csv", broken()))

    async def cancelled() -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

        task = asyncio.create_task(uploads.receive("x.csv", endless()))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert left(uploads) == []


def test_a_full_disk_is_a_sentence(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Uploads, "_settle", full)
    with pytest.raises(DiskFull, match="full"):
        receive(uploads, "x.csv", TABLE)
    assert left(uploads) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(DiskFull, match="too full"):
        receive(uploads, "x.csv", TABLE)


def test_all_uploads_together_are_bounded(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path / "uploads", file_limit=1000, total_limit=1500)
    receive(uploads, "a.csv", b"a" * 1000)
    with pytest.raises(Refused, match="set aside"):
        receive(uploads, "b.csv", b"b" * 1000, announced=1000)


def test_only_uploaded_files_count_as_such(uploads: Uploads, tmp_path: Path) -> None:
    path = receive(uploads, "a.csv", TABLE)
    outside = tmp_path / "secret.csv"
    outside.write_bytes(TABLE)
    (path.parent / "link.csv").symlink_to(outside)
    wrong = [outside, path.parent, uploads.folder, path.parent / "link.csv", path.parent / ".." / ".." / outside.name]
    assert not any(uploads.holds(str(entry)) for entry in wrong)
    assert not any(uploads.holds(text) for text in ("", "a.csv", "\x00", "x" * 5000, "acceptability"))


def test_what_a_killed_server_left_is_swept(uploads: Uploads) -> None:
    path = receive(uploads, "a.csv", TABLE)
    partial = uploads.folder / ".partial-x"
    partial.mkdir()
    (partial / "data").write_bytes(b"half")
    assert not uploads.holds(str(partial / "data"))
    uploads.sweep()
    assert path.exists() and not partial.exists()


def test_the_limit_is_an_environment_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Uploads(tmp_path).file_limit == 2**30
    monkeypatch.setenv("RANKLAB_UPLOAD_MIB", "0.5")
    assert Uploads(tmp_path).file_limit == 2**19
    for text in ("-1", "many", "nan", "0"):
        monkeypatch.setenv("RANKLAB_UPLOAD_MIB", text)
        with pytest.raises(InputError):
            limit_of("RANKLAB_UPLOAD_MIB", 1)
