"""The manifest for Kubernetes fits the operator's API, and what docs/cluster.md names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from scripts import bench_store, simulate_cluster

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
MANIFEST = yaml.safe_load((ROOT / "docs" / "kuberay.yaml").read_text(encoding="utf-8"))

# Fields of ray.io/v1 and of the pods in it, as far as a manifest here may use them. A dict holds fields, a list with
# one entry is a list of that, "texts" is an object of strings; a field with ! must be there.
ENVIRONMENT = [{"name!": str, "value": str, "valueFrom": {"secretKeyRef!": {"name!": str, "key!": str}}}]
QUANTITIES = {"cpu": "quantity", "memory": "quantity", "nvidia.com/gpu": "quantity"}
CONTAINER = {
    "name!": str,
    "image!": str,
    "env": ENVIRONMENT,
    "ports": [{"containerPort!": int, "name": str}],
    "resources": {"requests": QUANTITIES, "limits": QUANTITIES},
    "volumeMounts": [{"name!": str, "mountPath!": str}],
}
POD = {
    "metadata": {"labels": "texts", "annotations": "texts"},
    "spec!": {
        "containers!": [CONTAINER],
        "securityContext": {"runAsUser": int, "fsGroup": int, "runAsNonRoot": bool},
        "volumes": [{"name!": str, "emptyDir": {}, "persistentVolumeClaim": {"claimName!": str}}],
        "serviceAccountName": str,
        "nodeSelector": "texts",
    },
}
HEAD = {"template!": POD, "rayStartParams": "texts", "serviceType": str, "enableIngress": bool}
WORKERS = {
    "groupName!": str,
    "template!": POD,
    "rayStartParams": "texts",
    "replicas": int,
    "minReplicas!": int,
    "maxReplicas!": int,
    "numOfHosts": int,
    "idleTimeoutSeconds": int,
    "suspend": bool,
}
SCHEMA = {
    "apiVersion!": str,
    "kind!": str,
    "metadata!": {"name!": str, "labels": "texts", "namespace": str},
    "spec!": {
        "rayVersion": str,
        "headGroupSpec!": HEAD,
        "workerGroupSpecs": [WORKERS],
        "enableInTreeAutoscaling": bool,
        "suspend": bool,
        "authOptions": {"mode": str},
        "gcsFaultToleranceOptions": {"redisAddress": str, "externalStorageNamespace": str},
    },
}


def faults(value, schema, at="") -> list[str]:
    """Where a value does not fit."""
    if schema == "texts":
        fits = isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())
        return [] if fits else [f"{at}: texts"]
    if schema == "quantity":
        return [] if re.fullmatch(r"\d+(\.\d+)?(m|Ki|Mi|Gi|Ti)?", str(value)) else [f"{at}: a quantity"]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{at}: a list"]
        return [fault for place, entry in enumerate(value) for fault in faults(entry, schema[0], f"{at}[{place}]")]
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{at}: an object"]
        known = {name.rstrip("!"): kind for name, kind in schema.items()}
        found = [f"{at}.{name}: unknown" for name in value.keys() - known.keys()]
        found += [f"{at}.{name[:-1]}: missing" for name in schema if name.endswith("!") and name[:-1] not in value]
        return found + [
            fault for name in value.keys() & known.keys() for fault in faults(value[name], known[name], f"{at}.{name}")
        ]
    return [] if type(value) is schema else [f"{at}: {schema.__name__}"]


def test_the_manifest_fits_the_operators_api():
    assert not faults(MANIFEST, SCHEMA)
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayCluster")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda spec: spec.update(headGroup={}), "unknown"),
        (lambda spec: spec.pop("headGroupSpec"), "missing"),
        (lambda spec: spec["workerGroupSpecs"][0].update(replicas="4"), "int"),
        (lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}), "texts"),
    ],
)
def test_a_manifest_that_does_not_fit_is_told(change, fault):
    broken = json.loads(json.dumps(MANIFEST))
    change(broken["spec"])
    (found,) = faults(broken, SCHEMA)
    assert found.endswith(fault)


def test_every_pod_authenticates_and_no_dashboard_is_open():
    spec = MANIFEST["spec"]
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "requirements-ray.txt").read_text(), re.MULTILINE)[1]
    assert spec["rayVersion"] == pinned
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        environment = {entry["name"]: entry for entry in container["env"]}
        assert environment["RAY_AUTH_MODE"]["value"] == "token"
        assert "secretKeyRef" in environment["RAY_AUTH_TOKEN"]["valueFrom"]
    assert spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"


def test_what_the_document_names_is_there():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert targets and not [target for target in targets if not (ROOT / "docs" / target).exists()]
    for named in re.findall(r"docs/\S+\.\w+|scripts/\w+\.py|requirements\S*\.txt", TEXT):
        assert (ROOT / named).exists(), named
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "peft_core").rglob("*.py"))
    for option in re.findall(r"`(--[a-z-]+)`", TEXT):
        assert f'"{option}"' in code, option
    for variable in set(re.findall(r"RANKLAB_\w+", TEXT)):
        assert variable in code, variable


def test_a_simulated_sweep_finishes_every_cell_though_nodes_are_lost(tmp_path, monkeypatch):
    out = tmp_path / "cluster.json"
    command = ["simulate_cluster.py", "--cells", "400", "--nodes", "5", "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    monkeypatch.setattr(
        simulate_cluster, "CASES", (simulate_cluster.Case("a", 0.0), simulate_cluster.Case("b", 3.0, 2.0))
    )
    simulate_cluster.main()
    calm, rough = json.loads(out.read_text())["cases"]
    assert calm["finished"] == rough["finished"] == 400
    assert calm["nodes_lost"] == calm["lost_share"] == 0 and rough["nodes_lost"] > 1 and rough["lost_share"] > 0
    assert 1 <= calm["of_the_ideal"] < rough["of_the_ideal"]
    assert calm["utilisation"] == pytest.approx(1 / calm["of_the_ideal"])
    ElementTree.fromstring(out.with_suffix(".svg").read_text())
    assert "| b |" in out.with_suffix(".md").read_text()


def test_the_stores_rate_is_measured_with_every_event_stored_once(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["bench_store.py", "--seconds", "0.2", "--readers", "1", "--out", str(tmp_path / "s.json")]
    )
    monkeypatch.setattr(bench_store, "BATCHES", (1, 50))
    bench_store.main()
    rows = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert [row["batch"] for row in rows] == [1, 50] and all(row["reads"] and row["events"] for row in rows)
    assert "| 50 |" in (tmp_path / "s.md").read_text()
