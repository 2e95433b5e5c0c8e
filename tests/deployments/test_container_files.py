"""Images, the compose file, the Kubernetes manifests and the job templates: what can be known of
them without a container engine."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.stack.job_templates import FIXED, Images, closed, job_template
from deployments.stack.job_templates import FOLDER as TEMPLATES
from deployments.stack.register import _parser as register_parser
from deployments.stack.resources import POOLS

PROJECT = Path(__file__).resolve().parents[2]
DOCKER = PROJECT / "deployments" / "docker"
KUBERNETES = PROJECT / "deployments" / "kubernetes"
PREFECT = Path(str(importlib.util.find_spec("prefect").origin)).parent  # type: ignore[union-attr]
DOCKERFILES = [DOCKER / "Dockerfile", DOCKER / "Dockerfile.gpu"]
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MANIFESTS = sorted(KUBERNETES.rglob("*.yaml"))
IMAGES = Images("registry.example.org/cirflow:0.1.0", "registry.example.org/cirflow-gpu:0.1.0")
SECRET = re.compile(
    r"password|secret|auth.?string|api.?key|token|connection.?url|access.?key", re.I
)
OURS = re.compile(r"cirflow")


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d]


def walk(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every leaf of a document, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, (*path, str(key)))
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner, path)
    else:
        yield path, value


def pod_specs() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in documents(path):
            if document["kind"] in ("Deployment", "Job", "StatefulSet"):
                yield document["metadata"]["name"], document["spec"]["template"]["spec"]
    for pool in POOLS:
        template = job_template("kubernetes", pool, IMAGES)
        manifest = template["job_configuration"]["job_manifest"]
        yield f"job of the pool {pool}", manifest["spec"]["template"]["spec"]


def is_pinned(image: str) -> bool:
    _, _, tag = image.rpartition("/")[2].partition(":")
    return bool(tag) and tag != "latest" and bool(re.search(r"\d+\.\d+", tag))


# --------------------------------------------------------------------------- images


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_base_images_are_pinned(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    defaults = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)", text, re.M))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text, re.M))
    used = re.findall(r"^FROM (\S+)", text, re.M)
    assert defaults
    for image in used:
        name = re.fullmatch(r"\$\{(\w+)\}", image)
        assert image in stages or (name and is_pinned(defaults[name[1]])), image


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_no_image_runs_as_root_and_none_holds_a_secret(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    stages = re.split(r"^FROM ", text, flags=re.M)[1:]
    started = [stage for stage in stages if re.search(r"^(CMD|ENTRYPOINT) ", stage, re.M)]
    assert len(started) == 2
    for stage in started:
        users = re.findall(r"^USER (\S+)", stage, re.M)
        assert users
        assert users[-1] == "10001:10001"
    settings = re.findall(r"^(?:ARG|ENV)\s+(\w+)", text, re.M)
    settings += re.findall(r"^\s+(\w+)=", text, re.M)
    assert not [name for name in settings if SECRET.search(name)]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_what_is_copied_exists_and_is_not_kept_out(path: Path) -> None:
    allowed = [
        line[1:]
        for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    lines = re.findall(r"^COPY (?!--from)(.+)$", path.read_text(encoding="utf-8"), re.M)
    sources = [source for line in lines for source in line.split()[:-1] if source != "."]
    assert sources
    for source in sources:
        assert (PROJECT / source).exists(), source
        assert Path(source).parts[0] in allowed, source
    assert all((PROJECT / name).exists() for name in allowed)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_packages_come_from_the_lock_files(path: Path) -> None:
    installs = re.findall(
        r"uv pip install (.+?)(?=\n[A-Z#]|\Z)", path.read_text(encoding="utf-8"), re.S
    )
    assert installs
    for install in installs:
        assert "--constraint requirements/lock.txt" in install or "--no-deps" in install


def test_the_vllm_image_is_of_the_locked_version() -> None:
    lock = (PROJECT / "requirements" / "lock-vllm.txt").read_text(encoding="utf-8")
    locked = re.search(r"^vllm==(\S+)", lock, re.M)
    text = (DOCKER / "Dockerfile.gpu").read_text(encoding="utf-8")
    assert locked
    assert f"vllm/vllm-openai:v{locked[1]}\n" in text


@pytest.mark.parametrize(
    ("file", "extra"),
    [
        ("lock-pools.txt", {"prefect-docker", "prefect-kubernetes", "prefect-ray", "ray"}),
        ("lock-edit.txt", {"diffusers"}),
        ("lock-approximate.txt", {"faiss-cpu"}),
    ],
)
def test_extras_change_no_pin_of_the_lock(file: str, extra: set[str]) -> None:
    def pins(name: str) -> dict[str, str]:
        text = (PROJECT / "requirements" / name).read_text(encoding="utf-8")
        return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.M))

    added = pins(file)
    assert extra <= set(added)
    assert not set(added) & set(pins("lock.txt"))


# --------------------------------------------------------------------------- compose


def test_services_are_those_that_a_team_needs() -> None:
    always = {name for name, service in SERVICES.items() if not service.get("profiles")}
    assert always == {"database", "server", "store", "deploy", "worker-cpu"}
    assert {name for name in SERVICES if name not in always} == {"worker-gpu", "llm"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_restarted_and_without_new_rights(name: str) -> None:
    service = SERVICES[name]
    assert is_pinned(service["image"])
    assert service["restart"] == ("no" if name == "deploy" else "unless-stopped")
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert not any("docker.sock" in str(volume) for volume in service.get("volumes", []))
    if OURS.match(service["image"]):
        assert service["cap_drop"] == ["ALL"]


def test_ports_are_published_on_loopback_unless_somebody_says_otherwise() -> None:
    published = {name: s["ports"] for name, s in SERVICES.items() if "ports" in s}
    assert set(published) == {"server", "store"}
    for ports in published.values():
        for port in ports:
            default = re.match(r"\$\{\w+_BIND:-([\d.]+)\}:\d+:\d+$", port)
            assert default
            assert ip_address(default[1]).is_loopback
    assert SERVICES["database"]["networks"] == ["database"]
    assert COMPOSE["networks"]["database"] == {"internal": True}


def test_secrets_come_from_the_environment_file() -> None:
    secret = [
        (name, key[-1], value)
        for name, service in SERVICES.items()
        for key, value in walk(service.get("environment", {}))
        if SECRET.search(key[-1])
    ]
    assert len(secret) > 8
    for name, key, value in secret:
        assert re.search(r"\$\{\w+:?[-?]", value), f"{name}: {key}"
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    given = dict(re.findall(r"^(\w+)=(.*)$", example, re.M))
    assert {v for k, v in given.items() if SECRET.search(k)} == {""}
    used = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text(encoding="utf-8")))
    assert used == set(given)


def test_the_server_is_closed() -> None:
    environment = SERVICES["server"]["environment"]
    assert environment["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] == "true"
    assert "*" not in environment["PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS"]
    assert ":?" in environment["PREFECT_SERVER_API_AUTH_STRING"]
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert "PREFECT_SERVER_ANALYTICS_ENABLED=false" in text
    assert "DO_NOT_TRACK=1" in text


def test_services_run_what_exists_and_wait_for_what_exists() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        volumes = [v.split(":")[0] for v in service.get("volumes", [])]
        assert set(volumes) <= set(COMPOSE["volumes"])
        build = service.get("build")
        if build:
            file = (DOCKER / build["context"]).resolve() / build["dockerfile"]
            assert f" AS {build['target']}\n" in file.read_text(encoding="utf-8")
    command = SERVICES["deploy"]["command"]
    assert command[:3] == ["python", "-m", "deployments.stack.register"]
    arguments = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in command[3:]]
    assert register_parser().parse_args(arguments).root.startswith("s3://")
    for name in ("worker-cpu", "worker-gpu"):
        command = SERVICES[name]["command"]
        assert command[:3] == ["prefect", "worker", "start"]
        assert command[command.index("--pool") + 1] in POOLS
    assert importlib.util.find_spec("deployments.vllm.serve")


def test_prefect_has_the_lease_storage_that_is_named() -> None:
    named = SERVICES["server"]["environment"]["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]
    assert (PREFECT.parent / f"{named.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("profile", ["", "gpu", "llm"])
def test_docker_reads_the_compose_file(profile: str, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if not docker:
        pytest.skip("no docker client here")
    asked = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    if asked.returncode:
        pytest.skip("this docker client has no compose plug-in")
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    filled = tmp_path / "env"
    filled.write_text(re.sub(r"^(\w+)=$", r"\1=given", example, flags=re.M), encoding="utf-8")
    command = [docker, "compose", "--env-file", str(filled), "--file", str(DOCKER / "compose.yaml")]
    command += ["--profile", profile] if profile else []
    done = subprocess.run(
        [*command, "config", "--quiet"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------- Kubernetes


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_manifests_hold_no_secret_and_open_nothing(path: Path) -> None:
    for document in documents(path):
        assert document["kind"] != "Secret"
        if document["kind"] == "Service":
            assert document["spec"]["type"] == "ClusterIP"
        if document["kind"] == "Role":
            assert "secrets" not in {r for rule in document["rules"] for r in rule["resources"]}
    for _, spec in pod_specs():
        for container in containers(spec):
            for variable in environment(container):
                if SECRET.search(variable["name"]) and "SECRET_" not in variable["name"]:
                    assert "secretKeyRef" in variable["valueFrom"]


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container: dict[str, Any]) -> list[dict[str, Any]]:
    given = container.get("env", [])
    return given if isinstance(given, list) else []  # a template's placeholder


@pytest.mark.parametrize("spec", [pytest.param(spec, id=name) for name, spec in pod_specs()])
def test_no_pod_runs_as_root_or_without_bounds(spec: dict[str, Any]) -> None:
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["enableServiceLinks"] is False
    for container in containers(spec):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("folder", ["base", "overlays/gpu"])
def test_kustomize_builds_it_with_pinned_images_and_known_names(folder: str) -> None:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("no kubectl here")
    command = [kubectl, "kustomize", str(KUBERNETES / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = [d for d in yaml.safe_load_all(done.stdout) if d]
    named = {(d["kind"], d["metadata"]["name"]) for d in built}
    for document in (d for d in built if d["kind"] == "Deployment"):
        spec = document["spec"]["template"]["spec"]
        assert all(is_pinned(c["image"]) for c in containers(spec))
        account = spec.get("serviceAccountName")
        assert account is None or ("ServiceAccount", account) in named
        for path, value in walk(spec):
            if path[-2:] == ("configMapKeyRef", "name") or path[-2:] == ("configMapRef", "name"):
                assert ("ConfigMap", value) in named
            if path[-2:] == ("persistentVolumeClaim", "claimName"):
                assert ("PersistentVolumeClaim", value) in named
    policies = [d for d in built if d["kind"] == "NetworkPolicy"]
    assert any(not p["spec"]["podSelector"] and "ingress" not in p["spec"] for p in policies)
    job = job_template("kubernetes", "cpu", IMAGES)["job_configuration"]["job_manifest"]
    for path, value in walk(job):
        if path[-1] == "claimName":
            assert ("PersistentVolumeClaim", value) in named
        if path[-2:] == ("configMapRef", "name"):
            assert ("ConfigMap", value) in named


# --------------------------------------------------------------------------- job templates


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("pool_type", ["docker", "kubernetes"])
def test_a_template_uses_each_of_its_variables_and_no_other(pool_type: str, pool: str) -> None:
    template = job_template(pool_type, pool, IMAGES)
    variables = template["variables"]["properties"]
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(variables)
    assert all(v["description"] and v["title"] and v["type"] for v in variables.values())
    assert image_of(template) == (IMAGES.gpu if pool == "gpu" else IMAGES.cpu)
    assert template["variables"]["additionalProperties"] is False
    assert not FIXED & set(variables)
    environment = {"CIRFLOW_HOME": "/srv/cirflow", "HF_HOME": "/srv/cirflow/huggingface"}
    assert variables["env"]["default"] == variables["env"]["const"] == environment


def image_of(template: dict[str, Any]) -> str:
    """The image that a run of the pool starts from."""
    configuration = template["job_configuration"]
    if "image" in configuration:
        return str(configuration["image"])
    pod = configuration["job_manifest"]["spec"]["template"]["spec"]
    return str(pod["containers"][0]["image"])


@pytest.mark.parametrize("pool_type", ["docker", "kubernetes"])
def test_a_template_knows_the_variables_of_prefect_itself(pool_type: str) -> None:
    """Prefect ships the templates of its workers; runs may set what is not fixed."""
    shipped = PREFECT / "server" / "api" / "collections_data" / "views"
    metadata = json.loads((shipped / "aggregate-worker-metadata.json").read_text(encoding="utf-8"))
    theirs = metadata[f"prefect-{pool_type}"][pool_type]["default_base_job_configuration"]
    ours = job_template(pool_type, "cpu", IMAGES)
    left_out = {
        "docker": {"command", "network_mode", "registry_credentials"},
        "kubernetes": {"command", "cluster_config"},
    }[pool_type]
    wanted = set(theirs["variables"]["properties"])
    assert wanted - set(ours["variables"]["properties"]) == wanted & FIXED
    given = set(theirs["job_configuration"]) - left_out
    assert given <= set(ours["job_configuration"])
    if pool_type == "docker":
        assert ours["job_configuration"]["privileged"] is False


def test_only_runs_of_the_gpu_pool_ask_for_a_gpu() -> None:
    def default(pool_type: str, pool: str, variable: str) -> Any:
        template = job_template(pool_type, pool, IMAGES)
        return template["variables"]["properties"][variable]["default"]

    assert default("kubernetes", "cpu", "gpus") == "0"
    assert default("kubernetes", "gpu", "gpus") == "1"
    assert default("kubernetes", "cpu", "node_selector") == {}
    assert default("kubernetes", "gpu", "node_selector") == {"nvidia.com/gpu.present": "true"}
    cpu, gpu = (
        job_template("docker", pool, IMAGES)["job_configuration"]["container_create_kwargs"]
        for pool in ("cpu", "gpu")
    )
    assert "device_requests" not in cpu
    assert cpu["cap_drop"] == gpu["cap_drop"] == ["ALL"]
    requests = gpu["device_requests"]
    assert requests == [{"count": 1, "capabilities": [["gpu"]]}]


def test_a_pool_is_closed_once_and_keeps_what_its_owner_chose() -> None:
    variables = {
        "command": {"type": "string"},
        "env": {"type": "object", "default": {"A": "{{ prefect.blocks.secret.a }}"}},
        "image": {"type": "string", "default": "mine:2"},
        "name": {"type": "string"},
    }
    opened = {
        "variables": {"type": "object", "properties": variables, "required": ["image", "name"]},
        "job_configuration": {
            "command": "{{ command }}",
            "env": "{{ env }}",
            "labels": {"image": "from {{ image }}", "name": "{{ name }}"},
            "containers": [{"image": "{{ image }}", "args": "{{ command }}", "tty": None}],
        },
    }
    made = closed(opened)
    assert made == {
        "variables": {
            "type": "object",
            "properties": {
                "env": {**variables["env"], "const": variables["env"]["default"]},
                "name": {"type": "string"},
            },
            "required": ["name"],
            "additionalProperties": False,
        },
        "job_configuration": {
            "env": "{{ env }}",
            "labels": {"image": "from mine:2", "name": "{{ name }}"},
            "containers": [{"image": "mine:2", "tty": None}],
        },
    }
    assert closed(made) == made
    assert set(opened["variables"]["properties"]) == set(variables)  # the given one is left alone


def test_a_worker_takes_no_command_of_a_run_whatever_the_server_let_through() -> None:
    from prefect.utilities.asyncutils import run_coro_as_sync
    from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

    nobody: Any = object()
    asked = {"command": "touch owned", "working_dir": "/", "env": {"LD_PRELOAD": "x"}}
    shipped = ProcessWorker.get_default_base_job_template()
    for template, command in ((shipped, "touch owned"), (closed(shipped), None)):
        made = run_coro_as_sync(
            # Nothing refers to a block or variable of a server: none is asked.
            ProcessJobConfiguration.from_template_and_values(template, dict(asked), client=nobody)
        )
        assert made is not None
        assert made.command == command
        assert (made.working_dir is None) == (command is None)


def test_process_pools_close_prefects_template_and_others_need_an_image() -> None:
    assert job_template("process", "cpu", Images()) == {}
    with pytest.raises(ValueError, match="name the image"):
        job_template("kubernetes", "gpu", Images(cpu="only:1.0"))
    with pytest.raises(ValueError, match="process, docker, kubernetes"):
        job_template("ecs", "cpu", IMAGES)


@pytest.mark.parametrize("pool_type", ["docker", "kubernetes"])
def test_prefects_own_worker_takes_the_template(pool_type: str) -> None:
    worker = pytest.importorskip(f"prefect_{pool_type}.worker", reason=f"extra {pool_type}")
    from prefect.utilities.templating import apply_values

    template = job_template(pool_type, "gpu", IMAGES)
    variables = template["variables"]["properties"]
    defaults = {name: v["default"] for name, v in variables.items() if "default" in v}
    values = apply_values(template["job_configuration"], defaults)
    if pool_type == "docker":
        made = worker.DockerWorkerJobConfiguration(**values)
        assert made.image == IMAGES.gpu
        assert made.privileged is False
        return
    manifest = worker.KubernetesWorkerJobConfiguration(**values).job_manifest
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == IMAGES.gpu
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "cpu" not in container["resources"]["limits"]


def test_templates_are_shipped() -> None:
    names = {path.stem for path in TEMPLATES.glob("*.json")}
    assert names == {"docker", "kubernetes", "gpu"}
