"""One small cluster for all tests that need Ray, and one connection to it."""

from __future__ import annotations

import os

import pytest

from tests.runs import ray_trainer
from tests.runs.ray_cluster import Nodes, Shared


@pytest.fixture(scope="session")
def nodes():
    """Three nodes with one CPU each."""
    made = Nodes(3)
    before = {name: os.environ.get(name) for name in made.environment}
    os.environ.update(made.environment)
    try:
        yield made
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        made.close()


@pytest.fixture(scope="session")
def shared(nodes, tmp_path_factory):
    """An executor that many tests share: each joining of a cluster takes seconds."""
    executor = Shared(tmp_path_factory.mktemp("ray"), nodes.address)
    yield executor
    executor.end()


@pytest.fixture(scope="session")
def storing(nodes, tmp_path_factory):
    """A shared executor whose runs leave their files in a storage."""
    folder = tmp_path_factory.mktemp("storing")
    executor = Shared(folder, nodes.address, ray_trainer.TRAINER, storage=f"file://{folder}/storage")
    yield executor
    executor.end()


@pytest.fixture
def patient(monkeypatch):
    """The patience that a cluster needs, and shorter pauses before something is begun again."""
    monkeypatch.setattr("tests.runs.support.PATIENCE", 8.0)
    monkeypatch.setattr("peft_core.runs.ray_worker.PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("peft_core.runs.ray.PAUSE_SECONDS", 0.1)


@pytest.fixture
def on_ray(shared, patient):
    """The shared executor, with patience."""
    return shared


@pytest.fixture
def no_token(monkeypatch, tmp_path):
    """Nobody's token, and no storage."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "RANKLAB_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
