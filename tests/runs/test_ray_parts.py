"""What the Ray executor is made of, without a cluster: the storage, numbers of events, a node's files."""

from __future__ import annotations

import time

import pytest

from peft_core.records import InputError
from peft_core.runs.job import perform
from peft_core.runs.numbering import keep_fitting, read_notes, steps_of
from peft_core.runs.ray_host import MARK, MOST_WAITING, Full, Host, described
from peft_core.runs.ray_options import RayOptions
from peft_core.runs.storage import Storage
from tests.runs.ray_cluster import needs_ray
from tests.runs.ray_trainer import TRAINER, job
from tests.runs.support import comparison, until

pytestmark = pytest.mark.usefixtures("no_token")

# --- the storage ------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch):
    """An S3-compatible server on loopback; its URL."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed").ThreadedMotoServer(
        "127.0.0.1", 0
    )
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)
    yield "s3://bucket/ranklab"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_an_s3_compatible_storage_keeps_files_and_replaces_them(bucket, tmp_path):
    storage, file = Storage(bucket), tmp_path / "one"
    for content in (b"1", b"22"):
        file.write_bytes(content)
        storage.put(file, "runs/a/one")
        assert Storage(bucket).get("runs/a/one", tmp_path / "back") and (tmp_path / "back").read_bytes() == content
    storage.put(file, "runs/a/sub/two")
    assert storage.names("runs/a") == ["one", "sub/two"] and storage.names("runs/b") == []
    assert not storage.get("runs/a/none", tmp_path / "none")
    storage.drop("runs/a/one")
    assert storage.names("runs/a") == ["sub/two"]
    storage.remove("runs/a")
    assert storage.names("runs/a") == []


@pytest.mark.parametrize("kind", ["folder", "file", "memory"])
def test_files_come_back_from_the_storage_as_they_were(kind, tmp_path):
    url = {"folder": str(tmp_path / "there"), "file": f"file://{tmp_path}/there", "memory": f"memory://{tmp_path}"}[
        kind
    ]
    storage, folder = Storage(url), tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "one").write_bytes(b"1")
    (folder / "two").write_bytes(b"22")
    storage.put_folder(folder, "runs/a", without=("nothing",))
    storage.put(folder / "two", "runs/b/two")
    assert storage.names("runs/a") == ["sub/one", "two"] and storage.names("runs/none") == []
    storage.get_folder("runs/a", tmp_path / "back", without=("sub",))
    assert (tmp_path / "back" / "two").read_bytes() == b"22" and not (tmp_path / "back" / "sub").exists()
    assert not storage.get("runs/none", tmp_path / "back" / "none") and not (tmp_path / "back" / "none").exists()
    storage.drop("runs/a/two")
    storage.drop("runs/a/two")
    assert Storage(url).names("runs/a") == ["sub/one"]
    storage.remove("runs/a")
    storage.remove("runs/a")
    assert storage.names("runs") == ["b/two"]
    with pytest.raises(ValueError):
        storage.put(folder / "two", "../two")


def test_a_storage_of_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="it must be a URL that fsspec can open"):
        Storage("floppy://a/b")


# --- the numbers of events --------------------------------------------------------------------------------------


def performed(made):
    sent = []
    assert perform(made, TRAINER, sent.append, lambda run: False)
    return sent


def test_a_checkpoint_is_noted_with_the_events_before_it_and_numbers_go_on_from_there(tmp_path):
    run, first = tmp_path / "abcdefgh-0", performed(job(tmp_path))
    assert [report["n"] for report in first if "n" in report] == list(range(1, 13))
    assert read_notes(run) == {5: 5, 10: 10} and [report["saved"]["step"] for report in first if "saved" in report] == [
        5,
        10,
    ]
    keep_fitting(run, 9)
    assert steps_of(run) == {5}, "the events before step 10 are not all stored"
    again = performed(job(tmp_path, resume=True, events={"abcdefgh-0": 9}))
    assert [report["n"] for report in again if "n" in report] == list(range(6, 13))
    assert [report["event"]["step"] for report in again if "n" in report] == list(range(6, 13))


def test_where_states_alone_are_reported_every_checkpoint_is_noted_all_the_same(tmp_path):
    sent = performed(job(tmp_path, states_alone=True))
    assert [report["event"]["event"] for report in sent if "event" in report] == ["state", "state"]
    assert [report["saved"]["step"] for report in sent if "saved" in report] == [5, 10]
    assert read_notes(tmp_path / "abcdefgh-0") == {5: 0, 10: 0}, "no event of them has to be stored"


def test_checkpoints_of_another_executor_are_taken_as_they_are(tmp_path):
    performed(job(tmp_path).model_copy(update={"numbered": False}))
    run = tmp_path / "abcdefgh-0"
    keep_fitting(run, 12)
    assert steps_of(run) == {5, 10} and not read_notes(run)
    again = performed(job(tmp_path, resume=True, events={"abcdefgh-0": 12}))
    assert min(report["n"] for report in again if "n" in report) == 13


def test_another_executor_takes_no_checkpoint_ahead_of_the_store_and_leaves_none_that_is_not_noted(tmp_path):
    run = tmp_path / "abcdefgh-0"
    performed(job(tmp_path))
    performed(job(tmp_path, resume=True, events={"abcdefgh-0": 9}).model_copy(update={"numbered": False}))
    assert (run / "process").read_text().split()[1] == "5", "the events before step 10 were not stored"
    assert not (run / "checkpoints" / "events.json").exists()
    keep_fitting(run, 12)
    assert steps_of(run) == {5, 10}, "back on the cluster it goes on from where the other came to"


def taken(host, until_step=None):
    """All that a host reports, or what it does until a step."""
    reports = []
    while True:
        answer = host.take(len(reports), 5.0)
        assert answer["first"] == len(reports) + 1
        reports += answer["reports"]
        steps = [report["event"]["step"] for report in reports if "n" in report]
        if answer["ending"] or (until_step and steps and steps[-1] >= until_step):
            return reports, answer["ending"]


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_run_goes_on_on_another_node_from_the_storage_alone(kind, tmp_path, request):
    url = request.getfixturevalue("bucket") if kind == "s3" else f"file://{tmp_path}/storage"
    here = tmp_path / "page"
    slow = job(here, steps=40, resume=False)
    slow = slow.model_copy(update={"spec": comparison(methods=1, steps=40, step_seconds=0.03)})
    host = Host()
    assert host.begin(described(slow), TRAINER, 1, url)["refused"] is None
    before, _ = taken(host, until_step=17)
    host.close()
    stored = max(report["n"] for report in before if "n" in report)
    other = Host()
    later = slow.model_copy(update={"resume": True, "events": {"abcdefgh-0": stored}})
    assert other.begin(described(later), TRAINER, 1, url)["refused"] is None
    after, ending = taken(other)
    other.close()
    assert ending["how"] == "done"
    numbers = [report["n"] for report in after if "n" in report]
    assert numbers[0] in (11, 16) and numbers == list(range(numbers[0], 41)), "from the last checkpoint that fits"
    assert Storage(url).names("comparisons/abcdefgh/abcdefgh-0/adapter") == ["adapter.json"]
    assert not here.exists(), "nothing but the storage was used"


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path):
    assert "set RANKLAB_STORAGE" in Host().begin(described(job(tmp_path)), TRAINER, 1, None)["refused"]
    (tmp_path / MARK).touch()
    host = Host()
    assert host.begin(described(job(tmp_path)), TRAINER, 1, None)["refused"] is None
    reports, _ = taken(host)
    assert len([report for report in reports if "n" in report]) == 12
    host.close()


def test_a_token_that_is_not_the_clusters_is_told_as_such():
    from peft_core.runs.ray_bridge import refusal

    said = "Failed to connect to GCS. Last connection error: Traceback\nray.exceptions.AuthenticationError: RPC error"
    try:  # as Ray 2.60 tells it
        try:
            raise RuntimeError(said)
        except RuntimeError as cause:
            raise ConnectionError("Failed to connect to Ray cluster at h:1") from cause
    except ConnectionError as error:
        assert refusal(error) == {"refused": "the token is not the cluster's", "unauthenticated": True}
    assert refusal(ConnectionError("Failed\nto connect")) == {"refused": "Failed"}


def test_a_connection_that_cannot_be_opened_is_the_reason_of_what_waits(tmp_path, monkeypatch):
    from peft_core.runs.ray import RayExecutor

    monkeypatch.setattr("peft_core.runs.ray_options.installed", lambda: "2.60.0")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    (tmp_path / "file").touch()
    executor = RayExecutor(tmp_path / "file", TRAINER, RayOptions(address="127.0.0.1:1"))
    try:
        worker = executor.start(job(tmp_path))
        until(lambda: executor._refused)
        executor._patience = 0.0
        assert executor.slots() == 1, "at once"
        until(lambda: worker.ended() is not None)
        assert "cannot be reached (FileExistsError" in worker.ended().reason
    finally:
        executor.close()


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([], 60.0),
        ([{"cluster": {"CPU": 3.0}}], 180.0),
        ([{"refused": "the token is not the cluster's", "unauthenticated": True}], 0.0),
    ],
)
def test_a_cluster_that_was_never_there_is_not_waited_for_as_one_that_was(lines, left, tmp_path, monkeypatch):
    from peft_core.runs.ray import RayExecutor

    monkeypatch.setattr("peft_core.runs.ray_options.installed", lambda: "2.60.0")
    monkeypatch.setattr(RayExecutor, "_open", lambda executor: None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    executor = RayExecutor(tmp_path, TRAINER, RayOptions(address="127.0.0.1:1"))
    now = time.monotonic()
    try:
        for line in lines:
            executor._hear(line)
        executor._connected.clear()
        for late, alive in ((left - 5, True), (left + 5, False)):
            executor._away_since = now - late
            assert executor.alive() is alive
        worker = executor.start(job(tmp_path))
        until(lambda: worker.ended() is not None)
        assert worker.ended().how == "killed"
        assert worker.ended().reason.startswith("the Ray cluster 127.0.0.1:1 cannot be reached")
    finally:
        executor.close()


def attempted(folder, host, monkeypatch, resources=dict):
    """What the bridge says of an attempt on such a host."""
    import asyncio
    from types import SimpleNamespace

    from peft_core.runs.ray_bridge import Attempt

    monkeypatch.setattr("ray.cluster_resources", resources)
    lines = []
    bridge = SimpleNamespace(options=RayOptions(), trainer=TRAINER, storage=None, host=host, attempts={})
    bridge.take_idle, bridge.say = lambda key: None, lines.append

    async def attempt():
        bridge.attempts[1] = made = Attempt(1, job(folder), bridge)
        await made.task

    asyncio.run(attempt())
    assert not bridge.attempts
    return lines


class Refusing:
    def options(self, **resources):
        raise ValueError("The precision of a quantity cannot go beyond 0.0001")


REFUSED = {"how": "failed", "reason": "ValueError: The precision of a quantity cannot go beyond 0.0001", "log": ""}


@needs_ray
def test_what_ray_refuses_is_the_end_of_an_attempt_and_nobody_waits_for_it(tmp_path, monkeypatch):
    assert attempted(tmp_path, Refusing(), monkeypatch) == [{"of": 1, "ending": REFUSED}]


@needs_ray
def test_while_the_head_is_away_an_attempt_still_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr("peft_core.runs.ray_bridge.SIGN_SECONDS", 0.05)

    def blocked():
        time.sleep(0.5)
        return {}

    *signs, last = attempted(tmp_path, Refusing(), monkeypatch, blocked)
    assert len(signs) >= 3 and all(sign == {"of": 1, "silent": 0.0} for sign in signs) and last["ending"] == REFUSED


def test_what_a_killed_actor_left_on_its_node_is_removed_and_what_is_held_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    left, being_made = tmp_path / "tmp" / "ranklab-node-left", tmp_path / "tmp" / "ranklab-node-new"
    for folder in (left, being_made):
        folder.mkdir(parents=True)
    (left / ".held").touch()
    hosts = [Host(), Host()]
    slow = job(tmp_path / "page").model_copy(update={"spec": comparison(methods=1, steps=400, step_seconds=0.05)})
    for host in hosts:
        assert host.begin(described(slow), TRAINER, 1, f"file://{tmp_path}/storage")["refused"] is None
    assert not left.exists() and being_made.exists()
    assert len(list((tmp_path / "tmp").glob("ranklab-node-*/.held"))) == 2
    for host in hosts:
        host.close()
    assert list((tmp_path / "tmp").iterdir()) == [being_made]


def test_a_worker_waits_while_too_much_is_in_its_inbox(tmp_path):
    import threading

    inbox = Full()
    writer = threading.Thread(target=lambda: [inbox.put({"number": number}) for number in range(MOST_WAITING + 10)])
    writer.start()
    until(lambda: inbox._reports.qsize() == MOST_WAITING)
    assert writer.is_alive()
    found = inbox.take(0.0)
    writer.join(5)
    found += inbox.take(0.0)
    assert [report["number"] for report in found] == list(range(MOST_WAITING + 10))
