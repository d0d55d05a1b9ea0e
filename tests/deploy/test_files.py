"""Each file of deploy/ is read as its reader would, and each registry in it starts with settings that load cleanly."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from registry.config import Config, load

DEPLOY = Path(__file__).parents[2] / "deploy"
VARIABLES = {"REGION": "eu-central-1", "BUCKET": "images", "HTTP_SECRET": "secret"}


def compose(name: str) -> dict[str, Any]:
    """The services of a compose file, with the merges and variables that docker compose would fill in."""
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: VARIABLES[found[1]], (DEPLOY / "compose" / name).read_text())
    services: dict[str, Any] = yaml.safe_load(text)["services"]
    return services


def registries(name: str) -> dict[str, Config]:
    found = {}
    for service, spec in compose(name).items():
        if "moorage" in spec["image"]:
            loaded = load(None, {key: str(value) for key, value in spec["environment"].items()})
            assert not loaded.warnings, service
            found[service] = loaded.config
    return found


@pytest.mark.parametrize(("name", "readers"), [("s3.yaml", 3), ("aws.yaml", 1)])
def test_compose(name: str, readers: int) -> None:
    found = registries(name)
    assert {config.storage.driver for config in found.values()} == {"s3"}
    assert [service for service, config in found.items() if not config.storage.maintenance.readonly.enabled] == [
        "writer"
    ]
    assert found["writer"].http.secret
    assert len(found) == readers + 1


def test_compose_users_are_those_of_the_store() -> None:
    identities = json.loads(compose("s3.yaml")["s3"]["environment"]["USERS"])["identities"]
    keys = {(key["accessKey"], key["secretKey"]) for user in identities for key in user["credentials"]}
    used = {
        (config.storage.parameters["accesskey"], config.storage.parameters["secretkey"])
        for config in registries("s3.yaml").values()
    }
    assert used == keys


def actions(name: str) -> set[str]:
    policy = json.loads((DEPLOY / "aws" / name).read_text())
    return {
        action
        for statement in policy["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }


def test_policies_are_the_least() -> None:
    assert actions("iam-reader.json") == {"s3:GetObject", "s3:ListBucket"}
    assert not {action for action in actions("iam-writer.json") if "*" in action}
    assert actions("iam-reader.json") < actions("iam-writer.json")


def test_lifecycle() -> None:
    (rule,) = json.loads((DEPLOY / "aws" / "lifecycle.json").read_text())["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_clients() -> None:
    hosts = tomllib.loads((DEPLOY / "clients" / "hosts.toml").read_text())
    assert hosts["host"]["http://localhost:5000"]["capabilities"] == ["pull", "resolve"]
    assert json.loads((DEPLOY / "clients" / "daemon.json").read_text())


def test_user_data() -> None:
    path = DEPLOY / "aws" / "user-data.sh"
    subprocess.run(["bash", "-n", path], check=True)
    body = re.search(r"<<EOF\n(REGISTRY_.*?)\nEOF", path.read_text(), re.DOTALL)
    assert body
    lines = body[1].replace("$REGION", "eu-central-1").replace("$BUCKET", "images").splitlines()
    loaded = load(None, dict(line.split("=", 1) for line in lines))
    assert not loaded.warnings
    assert loaded.config.storage.maintenance.readonly.enabled


@pytest.mark.parametrize("name", ["replica", "writer"])
def test_kubernetes_settings(name: str, tmp_path: Path) -> None:
    loaded = load(DEPLOY / "kubernetes" / f"{name}.config.yml", {"REGISTRY_HTTP_SECRET": "secret"})
    assert not loaded.warnings
    assert loaded.config.storage.maintenance.readonly.enabled == (name == "replica")


def kubernetes(*names: str) -> list[dict[str, Any]]:
    texts = [(DEPLOY / "kubernetes" / f"{name}.yaml").read_text() for name in names]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def test_kubernetes() -> None:
    documents = kubernetes("namespace", "replica", "writer")
    pods = [d["spec"]["template"]["spec"] for d in documents if d["kind"] in {"DaemonSet", "Deployment"}]
    assert len(pods) == 2
    for pod in pods:
        (container,) = pod["containers"]
        assert pod["terminationGracePeriodSeconds"] > Config().http.draintimeout
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["resources"]["limits"]["memory"]
        assert container["readinessProbe"]
        assert container["livenessProbe"]


def test_the_collector_is_a_writer_that_nobody_pushes_to() -> None:
    """Same configuration, role and bounds; but neither behind its Service nor counted by its PodDisruptionBudget."""
    writer = kubernetes("writer")
    (deployment,) = (document for document in writer if document["kind"] == "Deployment")
    selectors = [d["spec"]["selector"] for d in writer if d["kind"] in {"Service", "PodDisruptionBudget"}]
    (cron,) = kubernetes("collector")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    theirs, ours = (each["spec"]["template"] for each in (deployment, cron["spec"]["jobTemplate"]))
    for selector in selectors:
        assert not selector.get("matchLabels", selector).items() <= ours["metadata"]["labels"].items()
    for name in ("serviceAccountName", "securityContext", "volumes"):
        assert ours["spec"][name] == theirs["spec"][name]
    (serving,), (collecting,) = theirs["spec"]["containers"], ours["spec"]["containers"]
    for name in ("image", "securityContext", "volumeMounts"):
        assert collecting[name] == serving[name]
    assert collecting["args"] == ["garbage-collect", *serving["args"][1:]]
    assert collecting["resources"]["limits"]["memory"]


def test_kustomize() -> None:
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("kubectl is not installed")
    shown = subprocess.run([kubectl, "kustomize", DEPLOY / "kubernetes"], check=True, capture_output=True, text=True)
    documents = list(yaml.safe_load_all(shown.stdout))
    assert sorted(document["kind"] for document in documents) == [
        "ConfigMap",
        "ConfigMap",
        "CronJob",
        "DaemonSet",
        "Deployment",
        "Namespace",
        "PodDisruptionBudget",
        "Service",
        "ServiceAccount",
        "ServiceAccount",
    ]
    (cron,) = (document for document in documents if document["kind"] == "CronJob")
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["configMap"]["name"] in {d["metadata"]["name"] for d in documents}  # renamed with it
    assert pod["containers"][0]["image"] == "registry.example.com/moorage:1"


@pytest.mark.slow
def test_units() -> None:
    if (verify := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd is not installed")
    units = sorted((DEPLOY / "systemd").iterdir())
    assert len(units) == 3
    done = subprocess.run([verify, "verify", *units], check=False, capture_output=True, text=True)
    complaints = [
        line
        for line in done.stderr.splitlines()
        if any(unit.name in line for unit in units) and "is not executable" not in line
    ]
    assert not complaints


def test_the_collector_is_as_confined_as_the_registry_and_reads_the_same() -> None:
    """And is the same user, as systemd gives the folder of the store to whom it starts."""

    def settings(name: str) -> set[str]:
        lines = (DEPLOY / "systemd" / name).read_text().splitlines()
        service = lines[lines.index("[Service]") : lines.index("[Install]") if "[Install]" in lines else None]
        return {line for line in service if line and not line.startswith("#")}

    of_serving = ("Type=", "ExecStart", "ExecReload=", "Restart", "TimeoutStopSec=", "LimitNOFILE=", "MemoryMax=")
    serving, collecting = settings("moorage.service"), settings("moorage-gc.service")
    assert {line for line in serving if not line.startswith(of_serving)} <= collecting
    assert "User=moorage" in collecting
    (start,) = (line for line in serving if line.startswith("ExecStart="))
    assert start.replace(" serve ", " garbage-collect ") in collecting
