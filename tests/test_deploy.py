"""What lies in deploy/: it says what the command takes, and linters find nothing."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.processes import end
from tests.support import eventually, roofleet, start_collector, start_roofleet

from roofleet import connect
from roofleet.commands.given import given
from roofleet.main import agent, collector, dashboard
from roofleet_collector.keys.tokens import _id_of

DEPLOY = Path(__file__).parents[1] / "deploy"
CHART = DEPLOY / "helm/roofleet"
COMMANDS = {"agent": agent.agent, "collector": collector.collector, "dashboard": dashboard.dashboard}
NVIDIA = {
    "name": "nvidia",
    "image": {"repository": "roofleet-agent-cuda"},
    "gpus": "nvidia",
    "runtimeClassName": "nvidia",
    "nodeSelector": {"nvidia.com/gpu.present": "true"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "rules": "[hub]\naccess = true\n",
}
AMD = {
    "name": "amd",
    "image": {"repository": "roofleet-agent-rocm"},
    "gpus": "amd",
    "hostPath": "/var/lib/roofleet",
    "options": ["--no-jobs"],
}
PEER = [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
FULL = {
    "agents": [NVIDIA, AMD],
    "dashboard": {"enabled": True},
    "networkPolicy": {"collectorFrom": PEER, "dashboardFrom": PEER, "metricsFrom": PEER},
    "collector": {"options": ["--query-rows", "1000"], "storage": {"existingClaim": "kept"}},
    "imagePullSecrets": [{"name": "registry"}],
}
GIVEN = {"tls": {"existingSecret": "tls"}, "tokens": {"existingSecret": "tokens"}, "agents": []}
VERSIONS = ("1.27", "1.34")
"""Versions of Kubernetes whose schemas the chart is held against: the first that it names, and a late one."""


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """What Helm makes of the chart with these values."""
    helm = pytest.importorskip("helm_python", reason="Helm is not here: the chart was not rendered")
    yaml = pytest.importorskip("yaml")
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values=values, name="rel", namespace="ns")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pods of what was rendered."""
    kinds = ("DaemonSet", "StatefulSet", "Deployment")
    return [found["spec"]["template"]["spec"] for found in objects if found["kind"] in kinds]


def check_command(words: list[str]) -> None:
    """Reads a command line of `roofleet` as that does; UserError for what it would not take."""
    if words[0] in COMMANDS:
        given(COMMANDS[words[0]], words[0], words[1:])
    else:
        assert words[:2] == ["tokens", "create"]


def test_the_units_are_those_that_install_writes(tmp_path: Path) -> None:
    """deploy/systemd is what `make units` writes."""
    makefile = (DEPLOY.parent / "Makefile").read_text().replace("\\\n", " ")
    made = re.findall(r"@\$\(ROOFLEET\) (.*)\n", makefile)
    assert len(made) == 3
    into = ("--program", "/opt/roofleet/bin/roofleet", "--units", str(tmp_path / "systemd"))
    for line in made:
        words = shlex.split(line.replace("$(UNITS)", ""))
        assert roofleet(*words, *into, data=tmp_path).returncode == 0
    for folder in ("systemd", "sysusers.d"):
        written = {file.name: file.read_text() for file in (tmp_path / folder).iterdir()}
        assert written == {file.name: file.read_text() for file in (DEPLOY / folder).iterdir()}


def test_the_container_file_runs_commands_that_there_are() -> None:
    """Each image's command is one that the parser takes, none runs as root, each part of an image is healthy
    by what it answers, and what is copied is there."""
    text = (DEPLOY / "container/Containerfile").read_text()
    stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", text, re.DOTALL | re.MULTILINE))
    assert {"agent", "agent-cpu", "agent-cuda", "agent-rocm", "collector", "dashboard"} <= set(stages)
    commands = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert len(commands) == 3
    for command in map(json.loads, commands):
        check_command(command)
    for name, stage in stages.items():
        users = re.findall(r"^USER (\S+)$", stage, re.MULTILINE)
        assert name == "build" or not users or users[-1] == "10001:10001"
    assert text.count("HEALTHCHECK") == 3
    for source in re.findall(r"^COPY ([^-]\S*)", text, re.MULTILINE):
        assert (DEPLOY.parent / source).exists(), source


def test_hadolint_finds_nothing_in_the_container_file() -> None:
    """Not even what is only a matter of style."""
    found = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if found is None:
        pytest.skip("hadolint is not here: the container file was not linted")
    done = subprocess.run([found, DEPLOY / "container/Containerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("values", "kinds_of_pods"), [({}, 2), (FULL, 4), (GIVEN, 1)], ids=["usual", "full", "given"]
)
def test_the_chart_is_what_kubernetes_takes(values: dict[str, Any], kinds_of_pods: int) -> None:
    """Helm's own lint finds nothing, every object is right by the schemas of Kubernetes, each command line by
    the parser of `roofleet`, and no pod has more rights than it needs."""
    schemas = pytest.importorskip("kubernetes_validate", reason="no schemas: the chart was not checked")
    objects = rendered(values)
    import helm_python

    said = helm_python.lint(CHART, values, strict=True)
    assert said["errors"] == []
    assert [m["error"] for m in said["messages"]] == ["icon is recommended"]
    for found in objects:
        for version in VERSIONS:
            schemas.validate(found, version, strict=True)
    assert len(pods(objects)) == kinds_of_pods
    for pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            check_command(container["args"])
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            has = {volume["name"] for volume in pod.get("volumes", ())} | {"data"}
            assert mounted <= has
        for container in pod["containers"]:
            assert {"startupProbe", "livenessProbe"} <= set(container)


@pytest.mark.parametrize(
    "values",
    [
        {"colector": {}},
        {"agents": [{"name": "Upper Case", "image": {"repository": "a"}}]},
        {"agents": [{"name": "a"}]},
        {"agents": [{"name": "a", "image": {"repository": "a"}, "gpus": "intel"}]},
        {"collector": {"options": "--query-rows 5"}},
        {"tls": {"crt": "…"}},
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    """The schema of the values knows every name and what it takes."""
    helm = pytest.importorskip("helm_python", reason="Helm is not here: the schema was not tried")
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError):
        chart.validate_schema(values)


def test_a_fleet_comes_up_from_what_the_chart_makes(tmp_path: Path) -> None:
    """The tokens and certificates that the chart makes, taken by the init containers' own commands, open a
    collector that runs on its own arguments, to an agent that runs on its own; secrets are in no argument."""
    objects = rendered({})
    made = {found["metadata"]["name"]: found for found in objects if found["kind"] == "Secret"}
    for folder, secret in (("tls", "rel-roofleet-tls"), ("tokens", "rel-roofleet-tokens")):
        (tmp_path / folder).mkdir()
        for name, text in made[secret]["data"].items():
            (tmp_path / folder / name).write_bytes(base64.b64decode(text))
    tokens = {file.name: file.read_text() for file in (tmp_path / "tokens").iterdir()}
    assert set(tokens) == {"admin", "agent"}
    assert all(map(_id_of, tokens.values()))
    workloads = json.dumps([found for found in objects if found["kind"] != "Secret"])
    assert not [token for token in tokens.values() if token in workloads]

    holder, sender = (
        next(found for found in objects if found["kind"] == kind)["spec"]["template"]["spec"]
        for kind in ("StatefulSet", "DaemonSet")
    )
    data = tmp_path / "data"
    for _ in range(2):  # as at each start of the pod
        for container in holder["initContainers"]:
            done = roofleet(*_here(container["args"], tmp_path), data=data)
            assert done.returncode == 0, done.stderr
    own = ("--grpc", "--sql", "--metrics", "--log-format")  # a port and a place of the test's
    words = _here(holder["containers"][0]["args"], tmp_path)[1:]
    ports = [word for word in words if not word.startswith(own)]
    running = start_collector(data, "127.0.0.1:0", "127.0.0.1:0", *ports)
    try:
        assert roofleet(*holder["containers"][0]["readinessProbe"]["exec"]["command"][1:], data=data).stdout
        there = f"localhost:{running.grpc.rpartition(':')[2]}"
        words = [word for word in _here(sender["containers"][0]["args"], tmp_path) if "metrics" not in word]
        words = [f"--collector={there}" if word.startswith("--collector") else word for word in words]
        attached = start_roofleet(
            *words, data=tmp_path / "node", stderr=subprocess.DEVNULL, ROOFLEET_HOST="node-7"
        )
        try:
            at = f"localhost:{running.sql.rpartition(':')[2]}"
            with connect(at, token=tokens["admin"], tls_ca=tmp_path / "tls/ca.crt") as fleet:
                seen = "SELECT hostname FROM hosts"
                eventually(lambda: fleet.sql(seen).column(0).to_pylist() == ["node-7"])
            attached.terminate()
            attached.wait(60)
        finally:
            end(attached)
    finally:
        running.terminate()


def _here(words: list[str], folder: Path) -> list[str]:
    """Arguments of a container, with what is mounted there in a folder."""
    return [word.replace("/run/", f"{folder}/").replace("$(", "") for word in words]
