"""What the Ray executor is made of, without a cluster: refusals, numbers of events, files, attempts."""

from __future__ import annotations

import json
import time

import pytest

from peft_core.cli import main
from peft_core.records import InputError, Offer, Plan, RunState, StateRecord
from peft_core.runs.job import OUT_OF_MEMORY, Job, perform
from peft_core.runs.numbering import keep_fitting, read_notes, steps_of
from peft_core.runs.ray_host import MARK, MOST_WAITING, Full, Host, described
from peft_core.runs.ray_options import RayOptions, in_words, require_ray, secured
from peft_core.runs.ray_worker import MOST_UNBEGUN, RayWorker
from peft_core.runs.storage import Storage
from tests.runs.ray_cluster import needs_ray
from tests.runs.ray_trainer import TRAINER
from tests.runs.support import comparison, until

TOKEN = {"RAY_AUTH_TOKEN": "t" * 32}
SMALL = ["compare", "--task", "acceptability", "--method", "lora:rank=2", "--steps", "1"]


@pytest.fixture(autouse=True)
def _no_token(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RANKLAB_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["10.0.0.7:6379", "auto", "head.example:6379", "[2001:db8::1]:6379"])
@pytest.mark.parametrize("environment", [{}, TOKEN | {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": " "}])
def test_a_cluster_beyond_this_machine_is_not_joined_without_a_token(address, environment):
    with pytest.raises(InputError, match="joined with token authentication only") as refused:
        secured(address, environment)
    assert str(refused.value).count(".") <= address.count(".") + 1 and "\n" not in str(refused.value)


def test_a_token_turns_authentication_on_wherever_it_comes_from(tmp_path):
    assert secured("10.0.0.7:6379", TOKEN) == TOKEN | {"RAY_AUTH_MODE": "token"}
    (tmp_path / "token").write_text("t" * 32)
    named = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    assert secured("10.0.0.7:6379", named) == named | {"RAY_AUTH_MODE": "token"}
    (tmp_path / "nobody" / ".ray").mkdir(parents=True)
    (tmp_path / "nobody" / ".ray" / "auth_token").write_text("t" * 32)
    assert secured("auto", {}) == {"RAY_AUTH_MODE": "token"}


def test_on_loopback_a_token_is_used_where_there_is_one_and_a_cluster_of_our_own_always_has_one():
    assert secured("127.0.0.1:6379", {}) == {}
    own, other = secured(None, {"RAY_ADDRESS": "10.0.0.7:6379"}), secured(None, {})
    assert own["RAY_AUTH_MODE"] == "token" and len(own["RAY_AUTH_TOKEN"]) == 64 and "RAY_ADDRESS" not in own
    assert own["RAY_AUTH_TOKEN"] != other["RAY_AUTH_TOKEN"]


@pytest.mark.parametrize("address", ["ray://10.0.0.7:10001", "head", "head:", ":6379x", "http://a:1"])
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(InputError, match="it must be auto or host:port"):
        secured(address, TOKEN)


def test_without_ray_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("peft_core.runs.ray_options.installed", lambda: None)
    assert main([*SMALL, "--executor", "ray"]) == 2
    said = capsys.readouterr().err
    assert said == "executor is 'ray'; it needs Ray; install it with `pip install -r requirements-ray.txt`.\n"


def test_a_ray_that_cannot_authenticate_is_refused(monkeypatch):
    monkeypatch.setattr("peft_core.runs.ray_options.installed", lambda: "2.51.9")
    with pytest.raises(InputError, match=r"Ray 2\.51\.9 has no authentication; install 2\.52 or newer"):
        require_ray()
    monkeypatch.setattr("peft_core.runs.ray_options.installed", lambda: "2.52.0rc1")
    require_ray()


def test_nothing_is_started_where_the_cluster_must_not_be_joined(monkeypatch, capsys):
    monkeypatch.setattr("peft_core.runs.ray_options.installed", lambda: "2.60.0")
    monkeypatch.setattr("peft_core.runs.ray.subprocess.Popen", None)
    assert main([*SMALL, "--executor", "ray", "--ray-address", "10.0.0.7:6379"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("option", ["--ray-address=a:1", "--ray-cpus=2", "--ray-gpus=0.5", "--ray-memory=4"])
def test_options_of_a_cluster_need_one(option, capsys):
    assert main([*SMALL, option]) == 2
    assert "it needs --executor ray" in capsys.readouterr().err


# --- options ----------------------------------------------------------------------------------------------------


def test_a_worker_gets_what_the_options_and_the_specification_say():
    options = RayOptions.of("h:1", {"RANKLAB_RAY_CPUS": "2.5", "RANKLAB_RAY_MEMORY_GIB": "1.5"})
    assert options.threads == 2
    assert options.resources("auto", 0) == {"num_cpus": 2.5, "num_gpus": 0.0, "memory": 3 * 2**29}
    assert options.resources("auto", 4)["num_gpus"] == options.resources("cuda", 0)["num_gpus"] == 1.0
    assert options.resources("cpu", 4)["num_gpus"] == 0.0
    parts = RayOptions.of(None, {"RANKLAB_RAY_GPUS": "0.25", "RANKLAB_RAY_ADDRESS": "auto"})
    assert parts.resources("auto", 0) == {"num_cpus": 1.0, "num_gpus": 0.25} and parts.address == "auto"
    assert in_words(parts.resources("auto", 0)) == "1 CPU, 0.25 GPU"
    assert in_words(options.resources("cpu", 4)) == "2.5 CPU, 1.5 GiB"


@pytest.mark.parametrize(("name", "text"), [("CPUS", "0"), ("CPUS", "0.00001"), ("GPUS", "1.5"), ("GPUS", "0.00001")])
def test_resources_that_are_not_scheduled_are_refused(name, text):
    with pytest.raises(InputError, match="it must be"):
        RayOptions.of(None, {f"RANKLAB_RAY_{name}": text})
    assert RayOptions.of(None, {"RANKLAB_RAY_GPUS": "0"}).resources("cuda", 4)["num_gpus"] == 0


@pytest.mark.parametrize("text", ["-1", "nan", "two", "1e9"])
def test_an_option_that_is_no_number_is_refused(text):
    with pytest.raises(InputError, match="it must be a number from 0"):
        RayOptions.of(None, {"RANKLAB_RAY_CPUS": text})


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


def job(folder, *, steps=12, methods=1, **fields):
    spec = comparison(methods=methods, steps=steps, step_seconds=0.0)
    runs = tuple(f"abcdefgh-{number}" for number in range(methods))
    return Job(comparison="abcdefgh", spec=spec, runs=runs, folder=folder, numbered=True, **{"resume": False} | fields)


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


@needs_ray
def test_a_token_that_is_not_the_clusters_is_told_as_such():
    from ray.exceptions import AuthenticationError

    from peft_core.runs.ray_bridge import refusal

    try:
        try:
            raise AuthenticationError("InvalidAuthToken: Authentication token is missing or incorrect")
        except AuthenticationError as cause:
            raise ConnectionError("Failed to connect to Ray cluster at h:1") from cause
    except ConnectionError as error:
        assert refusal(error) == {"refused": "the token is not the cluster's", "unauthenticated": True}
    assert refusal(ConnectionError("Failed\nto connect")) == {"refused": "Failed"}


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


# --- attempts ---------------------------------------------------------------------------------------------------


class Fake:
    """An executor that only notes what it is told."""

    def __init__(self, restarts=2):
        self.options = RayOptions(restarts=restarts)
        self.lines, self.due = [], []

    def tell(self, line):
        self.lines.append(line)

    def again(self, worker):
        self.due.append(worker)

    def forget(self, worker, number):
        self.lines.append({"end": number})


def step(run, number):
    return {"event": {"event": "step", "run": run, "step": number}, "n": number}


def ended_event(run, state=RunState.FINISHED):
    return {"event": json.loads(StateRecord(run=run, step=3, state=state).model_dump_json())}


def test_what_is_left_begins_again_and_no_event_comes_twice(tmp_path):
    line = Fake()
    worker = RayWorker(job(tmp_path, methods=2), line)
    first = worker.begin(1)["job"]
    assert first["numbered"] and not first["resume"]
    one, two = first["runs"]
    worker.hear({"begun": True})
    worker.hear({"reports": [step(one, 1), step(one, 2), ended_event(one), step(two, 1), step(two, 2)]})
    worker.hear({"lost": "the node was lost"})
    assert line.due == [worker] and worker.ended() is None
    again = worker.begin(2)["job"]
    assert (again["runs"], again["events"], again["resume"]) == ([two], {one: 2, two: 2}, True)
    worker.hear({"reports": [step(two, 2), step(two, 3)]})
    reports = worker.inbox.take(0)
    events = [
        (report["event"]["run"], report["event"]["step"])
        for report in reports
        if report.get("event", {}).get("event") == "step"
    ]
    assert events == [(one, 1), (one, 2), (two, 1), (two, 2), (two, 3)]
    (said,) = [report["notice"]["message"] for report in reports if "notice" in report]
    assert said == "The node was lost; worker 1 goes on from its last checkpoints (1 of 2 times)."
    assert not any("n" in report for report in reports)


@pytest.mark.parametrize(
    ("why", "how", "reason"),
    [
        ("the node was lost", "killed", "the node was lost, 3 times"),
        ("the node ran out of memory", "out_of_memory", OUT_OF_MEMORY),
    ],
)
def test_attempts_are_bounded(tmp_path, why, how, reason):
    line = Fake(restarts=2)
    worker = RayWorker(job(tmp_path), line)
    for number in (1, 2, 3):
        assert worker.ended() is None
        worker.begin(number)
        worker.hear({"begun": True})
        worker.hear({"lost": why})
    assert len(line.due) == 2 and (worker.ended().how, worker.ended().reason) == (how, reason)


def test_an_attempt_that_had_not_begun_does_not_count(tmp_path):
    line = Fake(restarts=0)
    worker = RayWorker(job(tmp_path), line)
    for number in range(1, 6):
        worker.begin(number)
        worker.hear({"waits": "1 CPU"})
        worker.hear({"lost": "the connection to the cluster was lost"})
    assert len(line.due) == 5 and worker.ended() is None
    (said,) = worker.inbox.take(0)
    assert said == {"notice": {"message": "Worker 1 waits for room on the cluster (1 CPU)."}}
    worker.begin(6)
    worker.hear({"begun": True})
    assert worker.inbox.take(0) == [{"notice": {"message": None}}]


def test_attempts_that_never_begin_are_bounded_too_and_wait_longer_each_time(tmp_path):
    line, due = Fake(restarts=0), []
    worker = RayWorker(job(tmp_path), line)
    for number in range(1, 1 + MOST_UNBEGUN):
        worker.begin(number)
        worker.hear({"lost": "the node ran out of memory"})
        due.append(worker.due - time.monotonic())
    assert worker.ended() is None and due[0] < 1.01 and due[1] > 1.5 and 9 < max(due) <= 10
    (said,) = worker.inbox.take(0)
    assert said == {"notice": {"message": "The node ran out of memory; worker 1 is tried again."}}
    worker.begin(99)
    worker.hear({"lost": "the node ran out of memory"})
    assert worker.ended().how == "out_of_memory"


def test_a_worker_that_is_given_up_says_no_more_that_it_goes_on(tmp_path):
    worker = RayWorker(job(tmp_path), Fake(restarts=1))
    for number in (1, 2):
        worker.begin(number)
        worker.hear({"begun": True})
        worker.hear({"lost": "the node was lost"})
    told = [report["notice"]["message"] for report in worker.inbox.take(0)]
    assert told[0].startswith("The node was lost; worker 1 goes on") and told[1:] == [None]


def test_a_worker_that_fails_by_itself_is_not_tried_again(tmp_path):
    line = Fake()
    worker = RayWorker(job(tmp_path), line)
    worker.begin(1)
    worker.hear({"ending": {"how": "failed", "reason": "the worker crashed (SIGSEGV)", "log": ""}})
    assert not line.due and worker.ended().reason == "the worker crashed (SIGSEGV)"


def test_the_plan_that_was_chosen_stays_and_the_first_share_goes_on(tmp_path):
    line = Fake()
    worker = RayWorker(job(tmp_path, methods=4, offer=Offer(workers=2, cores=1)), line)
    runs = worker.begin(1)["job"]["runs"]
    plan = Plan(workers=2, shares=((runs[0], runs[2]), (runs[1], runs[3])))
    worker.hear({"reports": [{"notice": {"plan": plan.model_dump(mode="json")}}]})
    worker.hear({"lost": "the node was lost"})
    again = worker.begin(2)["job"]
    assert again["runs"] == [runs[0], runs[2]] and Plan.model_validate(again["plan"]) == plan


def test_a_worker_that_was_offered_nothing_tells_plans_of_its_parts_and_gets_none(tmp_path):
    worker = RayWorker(job(tmp_path, methods=2), Fake())
    runs = worker.begin(1)["job"]["runs"]
    plan = Plan(workers=2, shares=((runs[0],), (runs[1],)))
    worker.hear({"reports": [{"notice": {"plan": plan.model_dump(mode="json")}}]})
    worker.hear({"lost": "the node was lost"})
    again = worker.begin(2)["job"]
    assert again["plan"] is None and again["runs"] == runs


def test_what_was_taken_is_told_and_a_stop_reaches_the_next_attempt(tmp_path):
    line = Fake()
    worker = RayWorker(job(tmp_path), line)
    (run,) = worker.begin(7)["job"]["runs"]
    worker.hear({"reports": [step(run, 1), step(run, 2), step(run, 2)]})
    assert len(worker.inbox.take(0)) == 2
    assert sum(told["count"] for told in line.lines if "took" in told) == 3
    worker.stop(run)
    worker.hear({"lost": "the node was lost"})
    worker.begin(8)
    worker.hear({"begun": True})
    assert [told for told in line.lines if "stop" in told] == [{"stop": 7, "run": run}, {"stop": 8, "run": run}]
    worker.kill()
    assert worker.ended().how == "stopped" and line.lines[-1] == {"end": 8}
