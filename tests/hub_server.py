"""A small server on loopback that speaks as much of the Hub's protocol as its own clients need to read repositories.

It serves folders: ``ROOT/models/OWNER/NAME`` and ``ROOT/datasets/OWNER/NAME``. A repository has one revision, ``main``;
its commit is a hash of its files. Files up to `LARGE` bytes are answered directly, larger ones by
a redirect to another host name.

    with HubServer(root) as hub:
        subprocess.run(..., env=hub.environment(tmp_path))

`HF_ENDPOINT` is read when huggingface_hub is imported, so clients run in processes of their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 10_000


class Server(ThreadingHTTPServer):
    """A client that goes away in the middle of an answer is no event."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@dataclass
class Fault:
    """What goes wrong with the next requests whose path contains `where`.

    status: answered instead, with `headers` (a 429 with the seconds to wait). cut: only so many bytes of the body are
    sent. delay: seconds before the answer. times: how often; then all is well. method: only for requests of this kind.
    """

    where: str
    status: int | None = None
    cut: int | None = None
    times: int = 1
    method: str | None = None
    delay: float = 0.0
    headers: Mapping[str, str] = field(default_factory=lambda: {"Retry-After": "0"})


@dataclass
class HubServer:
    """Serves the repositories below a folder.

    gated, private: repositories answered with 401 and the Hub's error codes; of a gated model, as on the Hub, the
    metadata is open and its files are answered with 403. sizes: by repository, sizes of files that
    its metadata claims (a repository of 400 GB takes no disk here). parameters: by repository, how many its metadata
    claims. commits: by repository, a commit to go by instead of the hash. moved: new names of models by their old ones,
    which are redirected. faults: see `Fault`.
    """

    root: Path
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    commits: Mapping[str, str] = field(default_factory=dict)
    moved: Mapping[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """Method and path of every request, in order."""
    logins: set[str] = field(default_factory=set)
    """Paths that were asked for with a token."""
    writers: Mapping[str, str] = field(default_factory=dict)
    """Owner by token: who may make repositories and commit to them."""
    commit_messages: list[str] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="hub", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """For a client's process: this server, an own cache, no telemetry, no proxy, no token."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
        return kept | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
        }

    def folder(self, kind: str, repository: str) -> Path:
        return self.root / kind / repository

    def files(self, kind: str, repository: str) -> dict[str, Path]:
        folder = self.folder(kind, repository)
        return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}

    def commit(self, kind: str, repository: str) -> str:
        if repository in self.commits:
            return self.commits[repository]
        digest = hashlib.sha1()
        for name, path in self.files(kind, repository).items():
            digest.update(name.encode() + path.read_bytes())
        return digest.hexdigest()

    def fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.where in path and fault.times > 0 and fault.method in (None, method):
                fault.times -= 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._body = self.rfile.read(length)
        self._answer()

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._body = self.rfile.read(length)
        self._answer()

    def _answer(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization"):
            self.hub.logins.add(self.path)
        self._fault = self.hub.fault(self.command, self.path)
        if self._fault and self._fault.delay:
            time.sleep(self._fault.delay)
        if self._fault and self._fault.status:
            return self._send(self._fault.status, {"error": "made to fail"}, self._fault.headers)
        for old, new in self.hub.moved.items():
            if self.path.startswith((f"/api/models/{old}/", f"/{old}/")):
                return self._send(307, {}, {"Location": self.path.replace(old, new, 1)})
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if self._writes(parts):
            return None
        if parts[0] == "lfs":
            return self._blob(Path(self.hub.root, *parts[1:]))
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            return self._api(parts[1], "/".join(parts[2:4]), parts[4:])
        kind = "datasets" if parts[0] == "datasets" else "models"
        rest = parts[1:] if kind == "datasets" else parts
        if len(rest) > 4 and rest[2] == "resolve":
            return self._resolve(kind, "/".join(rest[:2]), rest[3], "/".join(rest[4:]))
        return self._send(404, {"error": "Not found"})

    def _writes(self, parts: list[str]) -> bool:
        """Answers what a push of a folder asks for; False where the request is another one."""
        if parts == ["api", "validate-yaml"]:
            self._send(200, {"errors": [], "warnings": []})
        elif parts[0] == "upload" and self.command == "PUT":
            (self.hub.root / "uploads").mkdir(exist_ok=True)
            (self.hub.root / "uploads" / parts[1]).write_bytes(self._body)
            self._send(200, {})
        elif parts == ["api", "repos", "create"]:
            asked = json.loads(self._body)
            self._create(f"{asked.get('organization') or self._owner()}/{asked['name']}")
        elif parts[-3:] == ["lfs", "objects", "batch"]:
            self._batch(json.loads(self._body)["objects"])
        elif len(parts) == 6 and parts[:2] == ["api", "models"] and parts[4] in ("preupload", "commit"):
            repository = "/".join(parts[2:4])
            if self._may_write(repository):
                self._preupload() if parts[4] == "preupload" else self._commit(repository)
        else:
            return False
        return True

    def _owner(self) -> str | None:
        return self.hub.writers.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def _may_write(self, repository: str) -> bool:
        owner = self._owner()
        if owner is None:
            self._send(401, {"error": "Invalid username or password."})
        elif owner != repository.partition("/")[0]:
            self._send(403, {"error": "You don't have the rights to create a model under this namespace"})
        else:
            return True
        return False

    def _create(self, repository: str) -> None:
        if not self._may_write(repository):
            return
        there = self.hub.folder("models", repository).is_dir()
        self.hub.folder("models", repository).mkdir(parents=True, exist_ok=True)
        address = {"url": f"{self.hub.url}/{repository}"}
        self._send(409 if there else 200, address | ({"error": "You already created this model repo"} if there else {}))

    def _preupload(self) -> None:
        files = [
            {
                "path": entry["path"],
                "uploadMode": "lfs" if entry["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for entry in json.loads(self._body)["files"]
        ]
        self._send(200, {"files": files})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        found = [
            {**entry, "actions": {"upload": {"href": f"{self.hub.url}/upload/{entry['oid']}"}}} for entry in objects
        ]
        self._send(200, {"transfer": "basic", "objects": found})

    def _commit(self, repository: str) -> None:
        folder = self.hub.folder("models", repository)
        for line in self._body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.hub.commit_messages.append(value["summary"])
            elif entry["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif entry["key"] == "lfsFile":
                (self.hub.root / "uploads" / value["oid"]).rename(folder / value["path"])
        commit = self.hub.commit("models", repository)
        self._send(200, {"commitUrl": f"{self.hub.url}/{repository}/commit/{commit}", "commitOid": commit})

    def _allowed(self, kind: str, repository: str) -> bool:
        if repository in self.hub.gated and kind == "models" and self.path.startswith("/api/"):
            return True
        if repository in self.hub.gated:
            code = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}
            self._send(403 if kind == "models" else 401, {"error": "gated"}, code)
        elif repository in self.hub.private or not self.hub.folder(kind, repository).is_dir():
            self._send(
                401, {"error": "none"}, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            )
        else:
            return True
        return False

    def _api(self, kind: str, repository: str, rest: list[str]) -> None:
        if not self._allowed(kind, repository):
            return
        revision = rest[1] if len(rest) > 1 else "main"
        commit = self.hub.commit(kind, repository)
        if revision not in ("main", commit):
            self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        elif not rest or rest[0] == "revision":
            self._send(200, self._info(kind, repository, commit))
        elif rest[0] == "tree":
            self._send(200, self._tree(kind, repository, "/".join(rest[2:])))
        elif rest[0] == "paths-info":
            asked = json.loads(self._body).get("paths", []) if self._body[:1] == b"{" else []
            asked = asked or parse_qs(self._body.decode()).get("paths", [])
            found = [entry for path in asked for entry in self._entries(kind, repository) if entry["path"] == path]
            folders = [
                {"type": "directory", "path": path, "oid": "0" * 40}
                for path in asked
                if self.hub.folder(kind, repository).joinpath(path).is_dir()
            ]
            self._send(200, found + folders)
        elif rest[0] == "commits":
            first = {"id": commit, "title": "first", "message": "", "date": "2024-01-01T00:00:00.000Z", "authors": []}
            self._send(200, [first])
        else:
            self._send(404, {"error": "Not found"})

    def _info(self, kind: str, repository: str, commit: str) -> dict[str, Any]:
        entries = self._entries(kind, repository)
        siblings = [{"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]} for entry in entries]
        info: dict[str, Any] = {"id": repository, "sha": commit, "siblings": siblings, "private": False, "gated": False}
        info |= {"tags": [], "downloads": 0, "likes": 0, "lastModified": "2024-01-01T00:00:00.000Z", "disabled": False}
        config = self.hub.folder(kind, repository) / "config.json"
        if kind == "models" and config.is_file():
            info["config"] = json.loads(config.read_text())
            info |= {"gated": "manual" if repository in self.hub.gated else False, "tags": ["license:mit"]}
            if repository in self.hub.parameters:
                count = self.hub.parameters[repository]
                info["safetensors"] = {"parameters": {"BF16": count}, "total": count}
        return info

    def _entries(self, kind: str, repository: str) -> list[dict[str, Any]]:
        claimed = self.hub.sizes.get(repository, {})
        found = []
        for name, path in self.hub.files(kind, repository).items():
            data = path.read_bytes()
            size = claimed.get(name, len(data))
            found.append({"type": "file", "path": name, "size": size, "oid": hashlib.sha1(data).hexdigest()})
        return found

    def _tree(self, kind: str, repository: str, below: str) -> list[dict[str, Any]]:
        entries = self._entries(kind, repository)
        prefix = f"{below}/" if below else ""
        inside = [entry for entry in entries if entry["path"].startswith(prefix)]
        if "recursive=True" in self.path or "recursive=true" in self.path or "recursive=1" in self.path:
            return inside
        folders = sorted(
            {entry["path"][len(prefix) :].split("/")[0] for entry in inside if "/" in entry["path"][len(prefix) :]}
        )
        files = [entry for entry in inside if "/" not in entry["path"][len(prefix) :]]
        return [{"type": "directory", "path": prefix + name, "oid": "0" * 40, "size": 0} for name in folders] + files

    def _resolve(self, kind: str, repository: str, revision: str, name: str) -> None:
        if not self._allowed(kind, repository):
            return
        commit = self.hub.commit(kind, repository)
        if revision not in ("main", commit):
            return self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        path = self.hub.files(kind, repository).get(name)
        if path is None:
            return self._send(404, {"error": "none"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        data = path.read_bytes()
        if len(data) <= LARGE:
            return self._blob(path, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'})
        linked = {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        elsewhere = self.hub.url.replace("127.0.0.1", "localhost")
        place = f"{elsewhere}/lfs/{path.relative_to(self.hub.root).as_posix()}"
        return self._send(302, {}, {"Location": place, "X-Repo-Commit": commit, **linked})

    def _blob(self, path: Path, headers: Mapping[str, str] | None = None) -> None:
        data = path.read_bytes()
        status, start, end = 200, 0, len(data)
        asked = self.headers.get("Range", "")
        extra = {"Accept-Ranges": "bytes", "ETag": f'"{hashlib.sha256(data).hexdigest()}"', **(headers or {})}
        if asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else len(data) - int(last)
            end = min(len(data), int(last) + 1) if first and last else len(data)
            status, extra["Content-Range"] = 206, f"bytes {start}-{end - 1}/{len(data)}"
        self._send(status, data[start:end], extra)

    def _send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(body, bytes) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        cut = self._fault.cut if self._fault else None
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
