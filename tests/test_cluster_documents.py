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

# Fields of ray.io/v1 that are the operator's own, as far as a manifest here may use them; what is Kubernetes' own is
# named by the class of its published models. A dict holds fields, a list with one entry is a list of that, "texts" is
# an object of strings; a field with ! must be there.
POD, METADATA = "V1PodTemplateSpec", "V1ObjectMeta"
HEAD = {"template!": POD, "rayStartParams!": "texts", "serviceType": str, "enableIngress": bool}
WORKERS = {
    "groupName!": str,
    "template!": POD,
    "rayStartParams!": "texts",
    "replicas": int,
    "minReplicas!": int,
    "maxReplicas!": int,
    "numOfHosts": int,
    "suspend": bool,
}
SCHEMA = {
    "apiVersion!": str,
    "kind!": str,
    "metadata!": METADATA,
    "spec!": {
        "rayVersion": str,
        "headGroupSpec!": HEAD,
        "workerGroupSpecs": [WORKERS],
        "enableInTreeAutoscaling": bool,
        "suspend": bool,
    },
}


def faults(value, schema, at="") -> list[str]:
    """Where a value does not fit."""
    if schema in (POD, METADATA):
        return faults_of_model(value, schema, at)
    if schema == "texts":
        fits = isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())
        return [] if fits else [f"{at}: texts"]
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


def faults_of_model(value, model, at) -> list[str]:
    """Where a model of Kubernetes does not read a value, or drops what it does not know."""
    from kubernetes import client
    from kubernetes.utils import parse_quantity

    api = client.ApiClient()
    try:
        read = api.deserialize(json.dumps(value), model, "application/json")
        for container in read.spec.containers if model == POD and read.spec else ():
            asked = container.resources or client.V1ResourceRequirements()
            for quantity in (*(asked.requests or {}).values(), *(asked.limits or {}).values()):
                parse_quantity(quantity)
    except (ValueError, TypeError, AttributeError) as error:
        return [f"{at}: " + " ".join(str(error).split())]
    return lost(value, api.sanitize_for_serialization(read), at)


def lost(value, kept, at) -> list[str]:
    """Where two documents differ."""
    if isinstance(value, dict) and isinstance(kept, dict):
        names = sorted(value.keys() | kept.keys())
        return [fault for name in names for fault in lost(value.get(name), kept.get(name), f"{at}.{name}")]
    if isinstance(value, list) and isinstance(kept, list) and len(value) == len(kept):
        pairs = enumerate(zip(value, kept, strict=True))
        return [fault for place, pair in pairs for fault in lost(*pair, f"{at}[{place}]")]
    return [] if value == kept and (value is None) == (kept is None) else [f"{at}: unknown"]


def test_the_manifest_fits_the_operators_api_and_its_pods_those_of_kubernetes():
    assert not faults(MANIFEST, SCHEMA)
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayCluster")


def head(spec):
    return spec["headGroupSpec"]


def pod(spec):
    return spec["workerGroupSpecs"][0]["template"]["spec"]


def container(spec):
    return pod(spec)["containers"][0]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda spec: spec.update(headGroup={}), r"^\.spec\.headGroup: unknown"),
        (lambda spec: spec.pop("headGroupSpec"), r"headGroupSpec: missing"),
        (lambda spec: head(spec).pop("template"), r"template: missing"),
        (lambda spec: head(spec).pop("rayStartParams"), r"rayStartParams: missing"),
        (lambda spec: head(spec)["rayStartParams"].update({"num-cpus": 0}), r"rayStartParams: texts"),
        (lambda spec: spec["workerGroupSpecs"][0].update(replicas="4"), r"replicas: int"),
        (lambda spec: spec["workerGroupSpecs"][0].pop("maxReplicas"), r"maxReplicas: missing"),
        (lambda spec: spec.update(workerGroupSpecs={}), r"workerGroupSpecs: a list"),
        (lambda spec: pod(spec).pop("containers"), r"containers .*valid list"),
        (lambda spec: pod(spec).update(volume=[]), r"template\.spec\.volume: unknown"),
        (lambda spec: pod(spec)["securityContext"].update(runAsUser="1000"), r"runAsUser .*valid integer"),
        (lambda spec: container(spec).pop("name"), r"name .*valid string"),
        (lambda spec: container(spec).update(imag="a"), r"containers\[0\]\.imag: unknown"),
        (lambda spec: container(spec)["env"].append({"value": "1"}), r"name .*valid string"),
        (lambda spec: container(spec)["env"].append({"name": "A", "value": 1}), r"value .*valid string"),
        (lambda spec: container(spec)["env"][1]["valueFrom"]["secretKeyRef"].pop("key"), r"key .*valid string"),
        (lambda spec: container(spec)["resources"]["limits"].update(cpu=4), r"limits\.cpu .*valid string"),
        (lambda spec: container(spec)["resources"]["limits"].update(memory="8 gigabytes"), r"Invalid number format"),
    ],
)
def test_a_manifest_that_does_not_fit_is_told(change, fault):
    broken = json.loads(json.dumps(MANIFEST))
    change(broken["spec"])
    (found,) = faults(broken, SCHEMA)
    assert re.search(fault, found), found


def test_metadata_of_a_manifest_that_does_not_fit_is_told():
    assert faults(MANIFEST | {"metadata": {"name": "a", "label": {}}}, SCHEMA) == [".metadata.label: unknown"]
    assert re.search("valid string", *faults(MANIFEST | {"metadata": {"name": 1}}, SCHEMA))


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


def test_the_pods_settings_are_known_and_their_home_can_be_written():
    template = MANIFEST["spec"]["headGroupSpec"]["template"]["spec"]
    (container,) = template["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    known = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "peft_core").rglob("*.py"))
    assert not [name for name in environment if name.startswith("RANKLAB_") and name not in known]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounted[environment["RANKLAB_HOME"]] in {volume["name"] for volume in template["volumes"]}
    assert template["securityContext"]["fsGroup"] == template["securityContext"]["runAsUser"]


def test_the_image_answers_the_operators_probes():
    """They ask the dashboard's agent over HTTP, which Ray starts with its extra alone, and older ones ask by wget."""
    image = (ROOT / "docs" / "Dockerfile.ray").read_text(encoding="utf-8")
    assert "ray[default]" in image and "requirements-ray.txt" in image and "wget" in image


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
    monkeypatch.setattr(bench_store, "MOST", 5000)
    bench_store.main()
    rows = json.loads((tmp_path / "s.json").read_text())["rows"]
    assert [row["batch"] for row in rows] == [1, 50] and all(row["reads"] and row["events"] for row in rows)
    assert "| 50 |" in (tmp_path / "s.md").read_text()
