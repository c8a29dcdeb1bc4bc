"""What the Ray executor refuses, and what a worker gets: no cluster is needed."""

from __future__ import annotations

import pytest

from peft_core.cli import main
from peft_core.records import InputError
from peft_core.runs.ray_options import RayOptions, in_words, require_ray, secured

pytestmark = pytest.mark.usefixtures("no_token")
TOKEN = {"RAY_AUTH_TOKEN": "t" * 32}
SMALL = ["compare", "--task", "acceptability", "--method", "lora:rank=2", "--steps", "1"]


@pytest.mark.parametrize("address", ["10.0.0.7:6379", "auto", "[2001:db8::1]:6379", "127.0.0.1:6379"])
@pytest.mark.parametrize("environment", [{}, TOKEN | {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": " "}])
def test_a_cluster_is_not_joined_without_a_token(address, environment):
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


def test_a_cluster_of_our_own_always_has_a_token_that_is_drawn_anew():
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
