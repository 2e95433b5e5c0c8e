"""What is asked of flows, checked without Prefect: what runs, what is left out, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.forms import Backbone, BenchmarkChoice, Clip
from flows.requests.rerun_backbones import evaluate_matrix, rerun_backbone
from flows.requests.train_mapping import train_mapping
from tasks.methods import runnable_methods
from tasks.training.caption_files import read_captions
from tests.fakes.benchmark_layouts import CIRR_NAMES, write_cirr
from tests.fakes.pictures import png

OTHER = Backbone(name="ViT-B-32", pretrained="random:1")


@pytest.fixture
def cirr(tmp_path: Path) -> BenchmarkChoice:
    folder = write_cirr(tmp_path / "cirr")
    for name in CIRR_NAMES:
        place = folder / "dev" / f"{name}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(png())
    return BenchmarkChoice(name="cirr", folder=str(folder))


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    return {"root": str(tmp_path / "tables")}


def test_without_methods_all_that_can_run_do_and_the_others_are_listed(
    cirr: BenchmarkChoice, settings: dict[str, object]
) -> None:
    asked = rerun_backbone(OTHER, [cirr], settings=settings)
    every = set(runnable_methods(asked.profile))
    needing = every - set(asked.methods)
    assert {"cvsi", "lincir"} <= needing
    assert {"image-only", "text-only", "cirevl"} <= set(asked.methods)
    assert all("backbone.mapping" in asked.left_out[name] for name in needing)
    assert "mapping.searle" in asked.left_out["searle"]
    assert "unsuited" in asked.left_out["cvsi-code"]
    assert not set(asked.methods) & set(asked.left_out)
    assert asked.mapping is None


def test_with_captions_nothing_is_left_out_for_want_of_a_mapping_network(
    cirr: BenchmarkChoice, settings: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "captions.txt").write_text("a dog\n", encoding="utf-8")
    captions = str(tmp_path / "captions.txt")
    (asked,) = evaluate_matrix([OTHER], [cirr], mapping_captions=captions, settings=settings)
    assert {"cvsi", "lincir"} <= set(asked.methods)
    assert asked.mapping is not None
    assert asked.mapping.captions == captions


def test_a_method_that_is_named_is_not_left_out_but_refused(
    cirr: BenchmarkChoice, settings: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"ViT-B-32 is missing: .* other methods than lincir$"):
        rerun_backbone(OTHER, [cirr], ("lincir", "text-only"), settings=settings)


def test_a_refused_request_leaves_nothing_behind(
    cirr: BenchmarkChoice, settings: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="Did you mean 'ViT-B-32'"):
        rerun_backbone(Backbone(name="ViT-B-23", pretrained="openai"), [cirr], settings=settings)
    with pytest.raises(ValueError, match="either captions=FILE or collection=NAME"):
        train_mapping(backbone=Clip(), settings=settings)
    assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("caf\u00e9\n".encode("latin-1"), r"line 1 is not UTF-8 \(b'\\xe9'\)"),
        (b"a dog\n\na cat\nx \xff\n", r"line 4 is not UTF-8 \(b'\\xff'\)"),
        (b"a dog\na c\xc3", r"line 2 is not UTF-8 \(b'\\xc3'\)"),
        (b"\n \n", "holds no captions"),
    ],
)
def test_captions_that_are_not_utf_8_are_refused_with_file_and_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    file = tmp_path / "captions.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=said) as refused:
        read_captions(str(file))
    assert str(file) in str(refused.value)
