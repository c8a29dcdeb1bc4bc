"""The tests' Hub as a storage: dataset repositories that `HfFileSystem` reads, commits to and deletes from."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.hub_server import HubServer, Server, _Handler


@dataclass
class StorageHub(HubServer):
    """As `HubServer`, with datasets that can be written; private ones are open to whoever may write there."""

    deleted: list[str] = field(default_factory=list)
    """Paths of all deletions, in order."""

    def __enter__(self) -> StorageHub:
        handler = type("Handler", (_StorageHandler,), {"hub": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="hub", daemon=True).start()
        return self

    def place(self, repository: str) -> Path:
        """The folder of a dataset's files, made where it is not there."""
        self.folder("datasets", repository).mkdir(parents=True, exist_ok=True)
        return self.folder("datasets", repository)


class _StorageHandler(_Handler):
    hub: StorageHub

    def _writes(self, parts: list[str]) -> bool:
        if len(parts) != 6 or parts[:2] != ["api", "datasets"] or parts[4] not in ("preupload", "commit"):
            return super()._writes(parts)
        repository = "/".join(parts[2:4])
        if self._may_write(repository):
            self._preupload() if parts[4] == "preupload" else self._change(self.hub.place(repository), repository)
        return True

    def _change(self, folder: Path, repository: str) -> None:
        for entry in map(json.loads, self._body.splitlines()):
            value = entry["value"]
            if entry["key"] == "header":
                self.hub.commit_messages.append(value["summary"])
                continue
            path = folder / value["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry["key"] == "file":
                path.write_bytes(base64.b64decode(value["content"]))
            elif entry["key"] == "lfsFile":
                (self.hub.root / "uploads" / value["oid"]).rename(path)
            elif entry["key"] == "deletedFile":
                path.unlink()
                self.hub.deleted.append(value["path"])
            else:
                raise AssertionError(f"a commit with {entry['key']}")
        commit = self.hub.commit("datasets", repository)
        self._send(200, {"commitUrl": f"{self.hub.url}/datasets/{repository}/commit/{commit}", "commitOid": commit})

    def _allowed(self, kind: str, repository: str) -> bool:
        if repository in self.hub.private and self._owner() == repository.partition("/")[0]:
            return True
        return super()._allowed(kind, repository)

    def _api(self, kind: str, repository: str, rest: list[str]) -> None:
        names = self.hub.files(kind, repository) if self.hub.folder(kind, repository).is_dir() else {}
        below = "/".join(rest[2:])
        if rest[:1] == ["tree"] and below and not any(name.startswith(f"{below}/") for name in names):
            if self._allowed(kind, repository):
                self._send(404, {"error": "none"}, {"X-Error-Code": "EntryNotFound"})
            return
        super()._api(kind, repository, rest)
