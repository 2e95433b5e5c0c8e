"""What `cirflow doctor` says of a profile's downloads, worked by hand for the profile small."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from deployments import downloads
from flows.profiles import resolve_profile


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache without a model, on a machine without a GPU."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return tmp_path / "hub"


def found_of(settings: dict[str, str] | None = None) -> dict[str, downloads.Finding]:
    profile = resolve_profile("small", settings)
    return {each.what: each for each in downloads.check_downloads(profile)}


def test_each_checkpoint_is_counted_once(empty_cache: Path) -> None:
    found = found_of()
    assert "15.0 GB" in found["captioner and captioner of triplets"].found  # 3.74e9 x 4
    assert "3.1 GB" in found["text generator and rewriter"].found  # 1.54e9 x 2
    assert found["downloads"].found.startswith("18.6 GB to fetch")  # and 151.3e6 x 4


def test_what_the_cache_holds_is_not_fetched(empty_cache: Path) -> None:
    (empty_cache / "models--Salesforce--blip2-opt-2.7b" / "snapshots" / "abc").mkdir(parents=True)
    found = found_of()
    assert found["captioner and captioner of triplets"].state == "ok"
    assert found["downloads"].found.startswith("3.7 GB to fetch")


def test_a_hub_that_is_not_reached_is_broken_where_something_is_missing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "hub_fault", lambda: "the hub cannot be reached")
    hub = found_of()["hub"]
    assert (hub.state, hub.found) == ("broken", "the hub cannot be reached")
    assert "Salesforce/blip2-opt-2.7b" in hub.remedy
    for name in ("Salesforce--blip2-opt-2.7b", "Qwen--Qwen2.5-1.5B-Instruct"):
        (empty_cache / f"models--{name}" / "snapshots" / "abc").mkdir(parents=True)
    clip = "timm--vit_base_patch32_clip_224.openai"
    (empty_cache / f"models--{clip}" / "snapshots" / "abc").mkdir(parents=True)
    assert "hub" not in found_of()


def test_a_full_disk_is_broken(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=18e9))
    assert found_of()["downloads"].state == "broken"


@pytest.mark.parametrize(("memory", "state"), [(16e9, "broken"), (32e9, "note")])
def test_all_models_must_fit_at_once(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, memory: float, state: str
) -> None:
    monkeypatch.setattr(downloads, "_memory", lambda: memory)
    found = found_of()["models in memory"]
    assert found.state == state
    assert f"21.7 GB of {memory / 1e9:.1f} GB" in found.found  # (0.1513 + 3.74 + 1.54)e9 x 4
    halved = found_of({"captioner.dtype": "bf16", "generator.dtype": "bf16"})
    assert "11.2 GB" in halved["models in memory"].found  # 0.1513e9 x 4 + 5.28e9 x 2


def test_the_tiny_profile_downloads_nothing() -> None:
    assert list(downloads.check_downloads(resolve_profile("tiny"))) == []
