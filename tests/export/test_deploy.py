"""Containers and clusters: built offline where a tool is there, read and held against their rules in any case."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from nbllm import Endpoint, Settings
from nbllm.service import create_app
from nbllm.service.celery_app import celery_app
from nbllm.service.metrics import Metrics
from nbllm.service.sharing import namespace_of
from nbllm.service.testing import served
from nbllm.settings.load import load_file
from tests.export.cluster_schemas import HPA, POD_MONITOR, SCALED_OBJECT
from tests.export.exporting import NOTEBOOK, exported

KUBECTL = shutil.which("kubectl")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that needs a key, and a foreign host for another."""
    folder = tmp_path_factory.mktemp("x")
    endpoint = Endpoint(base_url="https://lab.example.org/v1", api_key_env="LAB_KEY")
    settings = Settings(home=folder / "home", endpoints={"lab": endpoint}, ladder=("lab/qwen", "openai/gpt-4o-mini"))
    return exported(folder / "support_app", NOTEBOOK[0], *NOTEBOOK[2:], settings=settings, proved=False).out


def documents(app: Path) -> Iterator[dict[str, Any]]:
    """Every object of deploy/base, deploy/keda and deploy/monitoring, as written."""
    for path in sorted(app.glob("deploy/*/*.yaml")):
        every = yaml.safe_load_all(path.read_text(encoding="utf-8"))
        yield from (one for one in every if one.get("kind") not in {"Kustomization", "Component"})


def built(app: Path, overlay: str) -> list[dict[str, Any]]:
    """What kustomize makes of an overlay."""
    if KUBECTL is None:
        pytest.skip("kubectl is not installed: kustomize was not run")
    done = subprocess.run([KUBECTL, "kustomize", f"deploy/{overlay}"], cwd=app, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_kustomize_builds_both(app: Path) -> None:
    """The base has the HPA and no KEDA; the option has KEDA's objects and no HPA; the rest is the same."""
    base, keda = built(app, "base"), built(app, "keda")
    names = [{(one["kind"], one["metadata"]["name"]) for one in found} for found in (base, keda)]
    assert names[0] - names[1] == {("HorizontalPodAutoscaler", "support-app")}
    assert names[1] - names[0] == {("ScaledObject", "support-app"), ("ScaledObject", "support-app-worker")}
    kinds = {kind for kind, _ in names[0]}
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "StatefulSet", "ServiceAccount"} <= kinds


def test_autoscalers_fit_their_schemas(app: Path) -> None:
    """HPA and KEDA objects, field by field; they scale deployments that exist, which set no number of replicas themselves."""
    found = list(documents(app))
    deployments = {one["metadata"]["name"]: one for one in found if one["kind"] == "Deployment"}
    checked = 0
    for one in found:
        schema = {"HorizontalPodAutoscaler": HPA, "ScaledObject": SCALED_OBJECT}.get(one["kind"])
        if schema is not None:
            jsonschema.Draft202012Validator(schema).validate(one)
            assert one["spec"]["scaleTargetRef"]["name"] in deployments
            checked += 1
    assert checked == 3
    assert all("replicas" not in one["spec"] for one in deployments.values())


def test_the_prometheus_operator_can_scrape_it(app: Path, tmp_path: Path) -> None:
    """An option of base and keda: a PodMonitor whose job is the one that queries name, on a port and with a key that there are."""
    (one,) = [one for one in documents(app) if one["kind"] == "PodMonitor"]
    jsonschema.Draft202012Validator(POD_MONITOR).validate(one)
    (container,) = dict(pods(app))["support-app"]["containers"]
    (endpoint,) = one["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    key = {"name": endpoint["authorization"]["credentials"]["name"], "key": endpoint["authorization"]["credentials"]["key"]}
    assert key in [v["valueFrom"]["secretKeyRef"] for v in container["env"] if "secretKeyRef" in v.get("valueFrom", {})]
    (labels,) = [d["spec"]["template"]["metadata"]["labels"] for d in documents(app)
                 if d["kind"] == "Deployment" and d["metadata"]["name"] == "support-app"]  # fmt: skip
    assert labels[one["spec"]["jobLabel"]] == "support-app"  # what test_queries_name_metrics_and_labels holds queries to
    copy = tmp_path / "app"
    shutil.copytree(app, copy)
    for overlay in ("base", "keda"):
        path = copy / "deploy" / overlay / "kustomization.yaml"
        text = path.read_text(encoding="utf-8")
        assert "\n# components: [../monitoring]" in text
        path.write_text(text.replace("\n# components:", "\ncomponents:"), encoding="utf-8")
        assert ("PodMonitor", "support-app") in {(o["kind"], o["metadata"]["name"]) for o in built(copy, overlay)}
        path.write_text(text, encoding="utf-8")


def test_where_a_model_server_is_can_be_said_from_outside(tmp_path: Path) -> None:
    """An endpoint of the notebook's machine: its variable is passed on by compose, told by the README, and taken by every pod."""
    endpoint = Endpoint(base_url="http://127.0.0.1:4567/v1", api_key_env="LAB_KEY")
    settings = Settings(home=tmp_path / "home", endpoints={"my-lab": endpoint}, ladder=("my-lab/qwen",))
    out = exported(tmp_path / "support_app", NOTEBOOK[0], *NOTEBOOK[2:], settings=settings, proved=False).out
    variable = "NBLLM_ENDPOINTS__MY_LAB__BASE_URL"
    compose = yaml.safe_load((out / "compose.yaml").read_text(encoding="utf-8"))
    for service in ("app", "worker"):
        environment = compose["services"][service]["environment"]
        assert (environment[variable], environment["NBLLM_KEY_HOSTS"]) == (f"${{{variable}:-}}", "${NBLLM_KEY_HOSTS:-}")
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert f"| `{variable}` | my-lab |" in readme
    assert "NBLLM_KEY_HOSTS=LAB_KEY@THE.HOST" in readme
    assert f"    kubectl create configmap support-app-settings --from-literal={variable}=..." in readme
    for name in ("support-app", "support-app-worker"):
        (container,) = dict(pods(out))[name]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": "support-app-settings", "optional": True}}]
    environ = {variable: "http://vllm.models:8000/v1", "NBLLM_KEY_HOSTS": "LAB_KEY@vllm.models"}
    loaded, _, _ = load_file(out / "settings.toml", environ, besides=("service",))
    assert loaded.endpoints["my-lab"].base_url == "http://vllm.models:8000/v1"


def test_without_such_a_server_nothing_is_said_of_one(app: Path) -> None:
    """The README has no empty part, and no line of it is missing."""
    readme = (app / "README.md").read_text(encoding="utf-8")
    assert "Model servers" not in readme
    assert "configmap" not in readme
    assert "\n\n\n" not in readme


def pods(app: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod template by the name of its owner."""
    for one in documents(app):
        if "template" in one.get("spec", {}):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def test_every_container_is_without_rights(app: Path) -> None:
    """No root, a root file system that cannot be written, no capabilities, no token of the cluster, limits."""
    seen = []
    for name, pod in pods(app):
        seen.append(name)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= set(container["resources"])
    assert seen == ["support-app", "support-app-redis", "support-app-worker"]


def test_probes_reach_the_service(app: Path) -> None:
    """Health and readiness by paths that exist, on the port that it listens on, by a Host that it knows."""
    (container,) = dict(pods(app))["support-app"]["containers"]
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert [probes[n]["path"] for n in probes] == ["/health", "/health", "/ready"]
    assert all(probe["httpHeaders"] == [{"name": "Host", "value": "127.0.0.1"}] for probe in probes.values())
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["args"][-1] == str(ports["http"])
    assert all(probe["port"] == "http" for probe in probes.values())


def test_selectors_find_their_pods(app: Path) -> None:
    """Services, policies and the budget for disruptions select labels that pods have."""
    found = list(documents(app))
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"].items()
        for one in found
        if "template" in one.get("spec", {})
    }
    for one in found:
        if one["kind"] == "PodMonitor":
            wanted = one["spec"]["selector"]["matchLabels"].items()
        elif one["kind"] == "Service":
            wanted = one["spec"]["selector"].items()
        elif one["kind"] in {"PodDisruptionBudget", "NetworkPolicy"}:
            wanted = one["spec"].get("selector", one["spec"].get("podSelector"))["matchLabels"].items()
        else:
            continue
        assert [name for name, has in labels.items() if wanted <= has], one["metadata"]["name"]
    policed = [one["metadata"]["name"] for one in found if one["kind"] == "NetworkPolicy"]
    assert set(policed) == set(labels)


def test_keys_come_from_secrets(app: Path) -> None:
    """Provider keys and the first caller's: by reference; hosts that a key may go to are named in the open."""
    variables = {one["name"]: one for one in dict(pods(app))["support-app"]["containers"][0]["env"]}
    for name in ("LAB_KEY", "OPENAI_API_KEY", "NBLLM_SERVICE_KEY"):
        assert variables[name]["valueFrom"]["secretKeyRef"] == {"name": "support-app", "key": name}
    assert variables["NBLLM_KEY_HOSTS"]["value"] == "LAB_KEY@lab.example.org"
    workers = {one["name"] for one in dict(pods(app))["support-app-worker"]["containers"][0]["env"]}
    assert set(variables) - workers == {"POD_IP", "NBLLM_SERVICE_ALLOWED_HOSTS"}  # a worker checks whose job it is, and asks models


def test_compose(app: Path) -> None:
    """Five services; nothing but loopback is published; roots cannot be written; files that are mounted are there."""
    told = yaml.safe_load((app / "compose.yaml").read_text(encoding="utf-8"))
    assert set(told["services"]) == {"app", "worker", "redis", "prometheus", "grafana"}
    for name, service in told["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service.get("cap_drop") == ["ALL"], name
        assert service.get("read_only") is True or name == "grafana", name
        assert ":" in service.get("image", "x:y"), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (app / source).exists() if source.startswith(".") else source in told["volumes"], volume
    assert told["services"]["app"]["environment"]["LAB_KEY"] == "${LAB_KEY:-}"
    assert told["networks"]["inner"] == {"internal": True}


def instructions(app: Path) -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"\\\n", " ", (app / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(line.split()[0], line.split(None, 1)[1]) for line in lines]


def test_the_dockerfile(app: Path) -> None:
    """Two stages from a pinned base, hashes checked, no build tools in the image, no root; every file copied is there."""
    found = instructions(app)
    words = [word for word, _ in found]
    stages = [n for n, word in enumerate(words) if word == "FROM"]
    assert len(stages) == 2
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-\w+", found[0][1])
    build, image = found[stages[0] : stages[1]], found[stages[1] :]
    assert any("--require-hashes" in rest and "--no-deps" in rest for word, rest in build if word == "RUN")
    assert ("USER", "10001:10001") in image
    assert words[-2:] == ["ENTRYPOINT", "CMD"]
    assert "HEALTHCHECK" in words
    assert not any("pip" in rest or "apt" in rest for _, rest in image)
    copied = {name for word, rest in image if word == "COPY" and not rest.startswith("--from") for name in rest.split()[:-1]}
    assert copied == {"app.py", "flows.py", "settings.toml"}
    assert all((app / name).exists() for name in copied)


def test_only_what_the_image_needs_goes_to_the_builder(app: Path) -> None:
    """Everything is shut out but what the Dockerfile copies: no .state, no .env, no tests."""
    lines = (app / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert allowed == {"requirements*.txt", "vendor/*.whl", "app.py", "flows.py", "settings.toml"}


def test_the_linter_has_nothing_to_say(app: Path) -> None:
    """hadolint, where it is installed."""
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed; tests/services gets one, here the assertions above stand alone")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=app, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def triggers(app: Path, kind: str) -> list[dict[str, str]]:
    """What KEDA looks at, of one kind."""
    found = [t for one in documents(app) if one["kind"] == "ScaledObject" for t in one["spec"]["triggers"]]
    return [one["metadata"] for one in found if one["type"] == kind]


def expressions(app: Path) -> list[str]:
    """Every query of the dashboard, the alerts and KEDA."""
    dashboard = json.loads((app / "monitoring/grafana/dashboards/app.json").read_text(encoding="utf-8"))
    alerts = yaml.safe_load((app / "monitoring/alerts.yml").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    found += [one["query"] for one in triggers(app, "prometheus")]
    return found


def test_queries_name_metrics_and_labels_that_the_service_has(app: Path) -> None:
    """Each metric is one that the service exposes, with its labels; brackets close; the job is the one that is scraped."""
    metrics = Metrics()
    known: dict[str, set[str]] = {"up": {"job"}}
    for collector in vars(metrics).values():
        if hasattr(collector, "_labelnames"):
            labels = {"job", *collector._labelnames}
            for name in collector._get_names() if hasattr(collector, "_get_names") else ():
                known[name] = labels
            known[f"{collector._name}_bucket"] = labels | {"le"}
            known[collector._name] = known[f"{collector._name}_total"] = labels
    queries = expressions(app)
    assert len(queries) >= 18
    for query in queries:
        assert query.count("(") == query.count(")")
        names = re.findall(r"\b(nbllm_\w+|up)\{([^}]*)\}", query)
        assert names, query
        assert len(names) == len(re.findall(r"\bnbllm_\w+|\bup\b", query)), query
        for name, selector in names:
            assert name in known, f"{name} in {query}"
            wanted = set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector))
            assert wanted <= known[name], query
            assert 'job="support-app"' in selector
            groups = {label.strip() for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(",")}
            assert groups <= set().union(*(known[n] for n, _ in names)), query
    scraped = yaml.safe_load((app / "monitoring/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert [one["job_name"] for one in scraped] == ["support-app"]


def test_a_running_service_exposes_what_is_asked_for(app: Path) -> None:
    """/metrics of a service that runs has every family that a query names."""
    asked = {name for query in expressions(app) for name in re.findall(r"\bnbllm_\w+", query)}
    with served(create_app(settings=app / "settings.toml")) as service:
        text = service.get("/metrics", key=service.key).body.decode()
    families = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    assert {re.sub(r"_bucket$", "", name) for name in asked} <= families
    assert len(asked) >= 12


def test_the_worker_and_its_queue_are_those_of_the_service(app: Path) -> None:
    """The command names a module that there is, in the folder where it finds the app; KEDA looks at the list that Celery fills."""
    worker = celery_app("redis://127.0.0.1:1/0", namespace_of("support-app"))
    prefix = worker.conf.broker_transport_options["global_keyprefix"]
    (trigger,) = triggers(app, "redis")
    assert trigger["listName"] == f"{prefix}{worker.conf.task_default_queue}"
    assert 'name="support-app"' in (app / "app.py").read_text(encoding="utf-8")
    (container,) = dict(pods(app))["support-app-worker"]["containers"]
    compose = yaml.safe_load((app / "compose.yaml").read_text(encoding="utf-8"))["services"]["worker"]
    assert container["command"] + container["args"] == compose["entrypoint"] + compose["command"]
    module = container["args"][container["args"].index("--app") + 1]
    assert importlib.util.find_spec(module) is not None
    assert ("WORKDIR", "/app") in instructions(app)
