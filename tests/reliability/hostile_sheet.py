"""The hostile sheet: what is sent to a public page, and what has to come back. One line an input.

`ALICE`, `HERS` and `SHARED` in a path or a body stand for another visitor's run on private data, its comparison, and
a comparison of hers that everybody may see; `STORE` for the file of the store.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
BYTES = "application/octet-stream"


@dataclass(frozen=True)
class Input:
    """A request. status: those that are right. says: a part of the answer. never: what must not be in it."""

    name: str
    path: str
    status: tuple[int, ...] = (200,)
    says: str = ""
    body: Any = None
    method: str = ""
    kind: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    cookie: bool = True
    never: str = ""

    @property
    def verb(self) -> str:
        return self.method or ("GET" if self.body is None else "POST")

    @property
    def content(self) -> bytes | None:
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


def form(**change: Any) -> dict[str, Any]:
    made = {"model": "tiny-text", "task": "acceptability", "methods": [{"id": "lora"}], "seeds": "0"}
    return {**made, "training": {"steps": "5"}, **change}


def start(name: str, says: str, **change: Any) -> Input:
    return Input(name, "/ranklab/start", (200,), says, form(**change))


def model(name: str, text: str) -> Input:
    return start(f"model: {name}", '"field":"model"', model=text)


def task(name: str, text: str) -> Input:
    return start(f"task: {name}", '"field":"task', task=text)


def file(name: str, path: str) -> Input:
    return Input(f"file: {name}", f"/gradio_api/file={path}", (403, 404))


def training(name: str, **values: Any) -> Input:
    field_of = next(iter(values))
    return start(f"number: {name}", f'"field":"training.{field_of}"', training={"steps": "5", **values})


def hers(name: str, path: str, body: Any = None, says: str = "errors") -> Input:
    return Input(f"another visitor's: {name}", path, (200, 403, 404), says, body)


def upload(name: str, filename: str, body: bytes, status: tuple[int, ...] = (200,), says: str = "") -> Input:
    return Input(f"upload: {name}", f"/ranklab/upload?name={filename}", status, says, body, kind=BYTES)


DEEP = "[" * 100_000 + "]" * 100_000
RTL, NUL = "\u202e", "\x00"
SCRIPT = "<script>alert(1)</script>"

INPUTS = (
    # --- names of models and tasks ---
    model("a path upwards", "../../etc"),
    model("an absolute path", "/etc/passwd"),
    model("a home folder", "~/models"),
    model("a path of Windows", "C:\\models\\x"),
    model("a URL", "https://evil.example/model"),
    model("a file URL", "file:///etc/passwd"),
    model("three parts", "a/b/c"),
    model("500 characters", "a/" + "b" * 498),
    model("501 characters", "b" * 501),
    model("a mark from right to left", f"owner/na{RTL}me"),
    model("a NUL", f"owner/na{NUL}me"),
    model("dots", "owner/.."),
    model("an encoded slash", "owner%2fname%2f..%2f.."),
    model("the folder of the embedded ones", "assets/models/tiny-text"),
    model("a script tag", SCRIPT),
    task("an absolute path", "/etc/passwd"),
    task("the store", "STORE"),
    task("a path upwards", "../../../etc/passwd"),
    task("the process", "/proc/self/environ"),
    task("a path beside a task", "acceptability+/etc/passwd"),
    task("an upload that is not there", "upload:00-00/00/x.csv"),
    task("an upload that climbs", "upload:../../store.sqlite"),
    task("another visitor's upload", "UPLOAD"),
    task("a Hub id that climbs", "hub:../../etc"),
    task("a Hub id of three parts", "hub:a/b/c"),
    task("a file URL", "file:///etc/passwd"),
    start("a file as ranks", "errors", methods=[{"id": "lora", "options": {"rank_pattern": "/etc/passwd"}}]),
    start("another visitor's run to begin with", "errors", methods=[{"id": "lora", "options": {"from": "ALICE"}}]),
    start("another visitor's shared run to begin with", "errors",
          methods=[{"id": "lora", "options": {"from": "SHARED-0"}}]),
    start("a method that is a path", '"field":"methods.0"', methods=[{"id": "../../x"}]),
    # --- files ---
    file("the store", "STORE"),
    file("the store with encoded slashes", "ENCODED"),
    file("the store, doubly encoded", "TWICE"),
    file("the visitors' key", "KEY"),
    file("a password file", "/etc/passwd"),
    file("the environment", "/proc/self/environ"),
    file("the working folder", "/proc/self/cwd/app.py"),
    file("a symbolic link", "LINK"),
    file("upwards from a relative name", "../../../../etc/passwd"),
    file("the program", "app.py"),
    file("a URL of the inside", "http://127.0.0.1:PORT/ranklab/recent"),
    file("the host's metadata", "http://169.254.169.254/latest/meta-data/"),
    Input("file: other letter case", "/GRADIO_API/FILE=/etc/passwd", (403, 404)),
    Input("file: half of it", "/gradio_api/File=/etc/passwd", (403, 404)),
    Input("file: the old address", "/file=/etc/passwd", (403, 404)),
    Input("file: a folder", "/gradio_api/file//etc/passwd", (403, 404)),
    Input("file: two slashes", "//gradio_api/file=/etc/passwd", (403, 404)),
    Input("file: from the page's own files", "/ranklab/static/../../../../etc/passwd", (403, 404)),
    Input("file: the same, encoded", "/ranklab/static/..%2f..%2f..%2f..%2fetc%2fpasswd", (403, 404)),
    Input("file: a program of the page", "/ranklab/static/..%2fguard.py", (403, 404)),
    Input("file: from Gradio's files", "/static/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", (403, 404)),
    Input("file: from Gradio's assets", "/assets/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", (403, 404)),
    Input("Gradio's own upload", "/gradio_api/upload", (403, 404), body=b"x", kind="multipart/form-data; boundary=x"),
    Input("Gradio's proxy", "/gradio_api/proxy=https://evil.hf.space/x", (403, 404)),
    Input("a component's function", "/gradio_api/component_server", (403, 404), body={"component_id": 1}),
    Input("Gradio's monitoring", "/monitoring", (403, 404)),
    Input("a deep link", "/gradio_api/deep_link?session_hash=x", (403, 404)),
    # --- what is another visitor's ---
    hers("view", "/ranklab/view?id=HERS"),
    hers("layers", "/ranklab/layers?id=HERS&label=lora"),
    hers("download", "/ranklab/download?id=HERS&format=json"),
    hers("download of what may be seen", "/ranklab/download?id=SHARED&format=csv"),
    hers("run", "/ranklab/runs/run?id=ALICE"),
    hers("curves", "/ranklab/runs/curves?run=ALICE"),
    hers("stop", "/ranklab/stop", {"id": "HERS"}),
    hers("stop of what may be seen", "/ranklab/stop", {"id": "SHARED"}, "another visitor"),
    hers("resume", "/ranklab/resume", {"id": "SHARED"}, "another visitor"),
    hers("start again", "/ranklab/again", {"id": "HERS"}),
    hers("delete", "/ranklab/runs/delete", {"id": "SHARED"}, "another visitor"),
    hers("delete unseen", "/ranklab/runs/delete", {"id": "ALICE"}),
    hers("undo", "/ranklab/runs/undo", {"id": "SHARED"}),
    hers("note", "/ranklab/runs/note", {"id": "SHARED-0", "text": SCRIPT}, "another visitor"),
    hers("export", "/ranklab/runs/export", {"id": "SHARED-0", "format": "native"}, "another visitor"),
    hers("push", "/ranklab/runs/push", {"id": "SHARED-0", "format": "native", "repository": "a/b"}),
    hers("archive", "/ranklab/runs/archive?job=../../store"),
    hers("trial", "/ranklab/tryit/described?comparison=SHARED"),
    hers("rows", "/ranklab/tryit/begin", {"comparison": "HERS"}),
    hers("maps", "/ranklab/playground/sites?run=ALICE"),
    Input("lists", "/ranklab/recent", never="HERS"),
    Input("all runs", "/ranklab/runs/list?choices=1&limit=200", never="HERS"),
    Input("a search for private names", "/ranklab/runs/list?search=secret", says='"total":0'),
    Input("a search for another visitor's note", "/ranklab/runs/list?search=diary", says='"total":0'),
    Input("a filter by a private task", "/ranklab/runs/list?task=UPLOAD", says='"total":0'),
    Input("models to ask", "/ranklab/tryit/menu?more=HERS", says='"comparisons":[]'),
    Input("updates to fit", "/ranklab/playground/targets", never="SHARED"),
    Input("a link to a private table", "/ranklab/linked?model=tiny-text&task=UPLOAD", never="secret_names"),
    # --- ids ---
    Input("id: upwards", "/ranklab/view?id=../../etc", says="errors"),
    Input("id: of a query", "/ranklab/view?id=x'%20OR%201=1--", says="errors"),
    Input("id: long", "/ranklab/view?id=" + "a" * 5000, says="errors"),
    Input("id: a line break", "/ranklab/download?id=abc%0d%0aSet-Cookie:%20x=y&format=csv", (404,)),
    Input("id: none", "/ranklab/runs/delete", (200,), "errors", {"id": None}),
    Input("format: a path", "/ranklab/download?id=example&format=../../x", (404,)),
    Input("after: not a number", "/ranklab/view?id=example&after=1e400"),
    Input("offset: beyond", "/ranklab/runs/list?offset=99999999999999999999", says="errors"),
    # --- numbers ---
    training("NaN", learning_rate="NaN"),
    training("infinity", learning_rate="Infinity"),
    training("1e400", learning_rate="1e400"),
    training("negative", learning_rate="-1"),
    training("2^64 steps", steps=str(2**64)),
    training("1e9 epochs", epochs="1e9", steps=""),
    training("a batch of none", batch_size="0"),
    training("a batch of all", batch_size="4096"),
    training("more steps than are taken", steps="1001"),
    start("number: a seed of 2^64", '"field":"seeds"', seeds=str(2**64)),
    start("number: more seeds than are taken", '"field":"seeds"', seeds=",".join(map(str, range(30)))),
    start("number: rows beyond", '"field":"train_rows"', train_rows="99999999"),
    start("number: rank 0", "errors", methods=[{"id": "lora", "options": {"rank": "0"}}]),
    Input("number: NaN in JSON", "/ranklab/budget", (200, 400), body='{"train_rows": NaN, "methods": []}'),
    Input("number: 1e400 in JSON", "/ranklab/playground/sketch", (200,), body='{"rank": 1e400}'),
    # --- bodies ---
    Input("body: deep", "/ranklab/start", (400,), body=DEEP),
    Input("body: deep, to Gradio", "/gradio_api/call/start", (400, 422), body=DEEP),
    Input("body: no object", "/ranklab/start", (400,), body="[1]"),
    Input("body: no JSON", "/ranklab/start", (400,), body="{"),
    Input("body: no UTF-8", "/ranklab/start", (400,), body=b'{"model": "\xff\xfe"}'),
    Input("body: half a surrogate pair", "/ranklab/start", (200,), "errors", body='{"model": "\\ud800"}'),
    Input("body: large", "/ranklab/start", (413,), body='{"model": "' + "x" * 300_000 + '"}'),
    Input("body: large, to Gradio", "/gradio_api/call/start", (413,), body='{"data": ["' + "x" * 1_100_000 + '"]}'),
    Input("body: wrong types", "/ranklab/start", (200,), "errors", {"model": [], "methods": "x", "seeds": {}}),
    Input("body: 1000 methods", "/ranklab/start", (200,), "errors", form(methods=[{"id": "lora"}] * 1000)),
    Input("type: a form", "/ranklab/start", (415,), body="model=x", kind="application/x-www-form-urlencoded"),
    Input("type: plain text", "/ranklab/stop", (415,), body="{}", kind="text/plain"),
    Input("type: none", "/ranklab/upload?name=a.csv", (415,), body=b"a,b", kind=""),
    # --- uploads (lines 18 to 20 where the server sees them) ---
    upload("a name that climbs", "..%2f..%2f..%2fevil.csv", b"text,label\na,b\n", says='/evil.csv"'),
    upload("a name with line breaks", "a%0d%0aX-Evil:%201.csv", b"text,label\na,c\n", says="upload:"),
    upload("a name that is markup", "%3Cscript%3E.csv", b"text,label\na,d\n", says="upload:"),
    upload("a name from right to left", "%E2%80%AEvsc.csv", b"text,label\na,e\n", says="upload:"),
    upload("a program", "x.py", b"import os", says='"field":"task"'),
    upload("no ending", "x", b"x", says='"field":"task"'),
    upload("nothing", "x.csv", b"", says="empty"),
    upload("too large", "x.csv", b"a" * 1_200_000, says="larger than"),
    # --- who ---
    Input("cookie: made up", "/ranklab/stop", (200,), "errors", {"id": "SHARED"}, cookie=False,
          headers={"Cookie": "ranklab_visitor=abc.def"}),
    Input("cookie: another visitor's name, unsigned", "/ranklab/view?id=HERS", (200,), "errors", cookie=False,
          headers={"Cookie": "ranklab_visitor=TOKEN." + "0" * 40}),
    Input("cookie: the hash as the cookie", "/ranklab/view?id=HERS", (200,), "errors", cookie=False,
          headers={"Cookie": "ranklab_visitor=HASH.HASH"}),
    Input("cookie: long", "/ranklab/view?id=HERS", (200,), "errors", cookie=False,
          headers={"Cookie": "ranklab_visitor=" + "a" * 8000}),
    Input("cookie: of a browser that keeps none", "/ranklab/start", (403,), "keeps no cookie", form(), cookie=False,
          headers={"Sec-Fetch-Site": "same-origin"}),
    Input("header: another address", "/ranklab/view?id=HERS", says="errors", headers={"X-Forwarded-For": "127.0.0.1"}),
    Input("header: another host", "/", headers={"X-Forwarded-Host": "evil.example"}),
    Input("another site: reads", "/ranklab/recent", (403,), headers={"Origin": "https://evil.example"}),
    Input("another site: null origin", "/ranklab/recent", (403,), headers={"Origin": "null"}),
    Input("another site: starts", "/ranklab/start", (403,), body=form(), headers={"Origin": "https://evil.example"}),
    Input("another site: says so itself", "/ranklab/stop", (403,), body={}, headers={"Sec-Fetch-Site": "cross-site"}),
    Input("another site: of the same domain", "/ranklab/stop", (403,), body={},
          headers={"Sec-Fetch-Site": "same-site"}),
    Input("another site: calls the API", "/gradio_api/call/start", (403,), body={"data": []},
          headers={"Origin": "https://evil.example"}),
    Input("another site: cancels an event", "/gradio_api/cancel", (403,), body={"session_hash": "x", "fn_index": 0},
          headers={"Origin": "https://evil.example"}),
    # --- verbs and sessions ---
    Input("verb: PUT", "/ranklab/start", (405,), method="PUT", body={}),
    Input("verb: DELETE", "/ranklab/start", (405,), method="DELETE", body={}),
    Input("verb: PATCH", "/ranklab/runs/note", (405,), method="PATCH", body={}),
    Input("verb: GET where something starts", "/ranklab/start", (405,)),
    Input("verb: POST where something is read", "/ranklab/view", (405,), body={}),
    Input("verb: TRACE", "/ranklab/view", (405,), method="TRACE"),
    Input("session: unknown", "/gradio_api/queue/data?session_hash=unknown", (200, 404)),
    Input("session: a queue of another", "/gradio_api/queue/join", (200, 400, 404, 422, 500),
          body={"data": [], "fn_index": 999, "session_hash": "x"}),
    Input("session: an unknown event", "/gradio_api/call/start/unknown", (200, 404)),
    Input("session: an event that is cancelled unasked", "/gradio_api/cancel", (200, 422),
          body={"session_hash": "x", "fn_index": 0, "event_id": "y"}),
    Input("API: an unknown function", "/gradio_api/call/eval", (400, 404, 422, 500), body={"data": []}),
    # --- text ---
    start("markup in a method", "errors", methods=[{"id": SCRIPT}]),
    start("a formula in an option", "errors", methods=[{"id": "lora", "options": {"rank": "=1+1"}}]),
    Input("markup in a link", "/ranklab/linked?model=" + "%3Cscript%3Ealert(1)%3C/script%3E&task=acceptability"),
    Input("a long link", "/ranklab/linked?model=" + "x" * 9000, says="too long"),
)  # fmt: skip

CALLS = (
    ("start", ["lora"], ""),
    ("start", [["lora"], "/etc/passwd", "acceptability", [0], {"steps": 5}, {}, {}, "", ""], "model"),
    ("start", [["lora"], "tiny-text", "STORE", [0], {"steps": 5}, {}, {}, "", ""], "task"),
    ("start", [["lora"], "tiny-text", "UPLOAD", [0], {"steps": 5}, {}, {}, "", ""], "task"),
    ("start", [["lora"], 7, {}, "x", [], 1, None, [], {}], ""),
    ("start", [["lora"], "tiny-text", "acceptability", [0], {"steps": 10**6}, {}, {}, "", ""], "the most on this"),
    ("start", [["lora"], "tiny-text", "acceptability", [2**64], {"steps": 5}, {}, {}, "", ""], "seed"),
    ("status", ["HERS"], "there is no comparison"),
    ("status", [{"a": 1}], "short text"),
    ("results", ["HERS", ""], "there is no comparison"),
    ("results", ["../../etc", ""], "there is no comparison"),
)
"""Functions for programs: name, values, and a part of the sentence that refuses them."""
