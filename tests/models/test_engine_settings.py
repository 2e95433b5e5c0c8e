"""Engines are members of a union; their settings load them, and importing them is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from models.captioners.settings import CaptionerSettings
from models.engine_settings import EngineSettings, engine_kinds, switched
from models.generators.settings import GeneratorSettings
from models.protocols import (
    TORCH_DTYPES,
    AutoDtype,
    Captioner,
    EngineUnavailable,
    TextGenerator,
    TextRequest,
)

UNIONS = {Captioner: CaptionerSettings, TextGenerator: GeneratorSettings}
NEEDED = {"model": "m", "base_url": "http://host/v1"}


@pytest.mark.parametrize("protocol", UNIONS, ids=lambda protocol: protocol.__name__)
def test_every_engine_is_read_by_its_name_and_loads_itself(protocol: type) -> None:
    for name, kind in engine_kinds(UNIONS[protocol]).items():
        given = {k: v for k, v in NEEDED.items() if k in kind.model_fields}
        found = TypeAdapter(UNIONS[protocol]).validate_python({"engine": name, **given})
        assert type(found) is kind
        assert isinstance(found, EngineSettings)
        if name == "imported":  # a benchmark's stored texts: there is nothing to load
            with pytest.raises(EngineUnavailable, match="of their benchmark only"):
                found.load()
        else:
            assert isinstance(found.load(), protocol)
        assert TypeAdapter(UNIONS[protocol]).validate_json(found.model_dump_json()) == found
        assert hash(found) == hash(found.changed())


def test_an_engine_made_from_values_answers(tmp_path: Path) -> None:
    from tests.fakes.checkpoints import save_llama

    settings = TypeAdapter(GeneratorSettings).validate_python(
        {"engine": "transformers", "model": str(save_llama(tmp_path)), "device": "cpu"}
    )
    (reply,) = settings.load().generate([TextRequest("k", "w1")])
    assert reply.key == "k"


def test_every_setting_has_a_text() -> None:
    for union in UNIONS.values():
        for kind in engine_kinds(union).values():
            for name in kind.model_fields:
                assert kind.text_of(name) or name == "engine", f"{kind.__name__}.{name}"


def test_an_engine_is_switched_and_common_settings_stay() -> None:
    here = {"engine": "blip2", "model": "m", "device": "cpu", "dtype": "fp32", "batch_size": 3}
    there, own = switched(CaptionerSettings, here, {"engine": "openai"}, "captioner")
    assert own == {"engine": "openai"}
    assert (there["engine"], there["model"], there["timeout"]) == ("openai", "m", 120.0)
    assert "device" not in there
    llava, _ = switched(CaptionerSettings, here, {"engine": "llava"}, "captioner")
    assert llava == here | {"engine": "llava", "revision": ""}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"base_url": "http://a/v1"},
            "captioner.base_url is ignored: it is a setting of openai, and "
            "captioner.engine is blip2",
        ),
        (
            {"engine": "openai", "device": "cpu"},
            "captioner.device is ignored: it is a setting of blip2 and llava, and "
            "captioner.engine is openai",
        ),
    ],
)
def test_a_setting_of_another_engine_is_dropped_with_a_warning(
    changes: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = {"engine": "blip2", "model": "m"}
    values, own = switched(CaptionerSettings, here, changes, "captioner")
    assert [record.getMessage() for record in caplog.records] == [said]
    assert own == {name: value for name, value in changes.items() if name == "engine"}
    assert not {"base_url", "device"} & own.keys()
    assert values["engine"] == changes.get("engine", "blip2")


def test_an_unknown_engine_is_refused_with_the_nearest() -> None:
    here = {"engine": "blip2", "model": "m"}
    with pytest.raises(ValueError, match=r"captioner.engine 'blp2'; did you mean 'blip2'"):
        switched(CaptionerSettings, here, {"engine": "blp2"}, "captioner")


@pytest.mark.parametrize("short", TORCH_DTYPES)
def test_both_names_of_a_precision_are_read(short: str) -> None:
    reads = TypeAdapter(AutoDtype).validate_python
    assert reads(short) == reads(TORCH_DTYPES[short]) == short
    with pytest.raises(ValidationError, match="'auto', 'fp32', 'bf16' or 'fp16'"):
        reads("int8")
    assert get_args(get_args(AutoDtype)[0]) == ("auto", *TORCH_DTYPES)


def test_the_unions_import_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "openai", "httpx2", "huggingface_hub", "PIL"}
    code = (
        "import sys, models.captioners.settings, models.generators.settings; "
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
