"""Profiles: complete values, extended by TOML files, with misspellings refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.profiles import (
    EMBEDDED,
    PROFILES,
    ProfileError,
    parse_assignments,
    production,
    resolve_profile,
    tiny,
)
from models.captioners.blip2 import Blip2Settings
from models.captioners.llava import LlavaSettings
from models.captioners.openai_images import OpenAIImagesSettings
from models.generators.transformers import TransformersSettings
from tasks.methods import configured_method, runnable_methods
from tasks.settings import Profile


def names(values: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted names of all values; what follows an engine's is its own."""
    found: set[str] = set()
    for key, value in values.items():
        if isinstance(value, dict) and "engine" in value:
            value = {"engine": value["engine"]}
        found |= names(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


@pytest.mark.parametrize("name", PROFILES)
def test_every_shipped_profile_resolves_and_survives_json(name: str) -> None:
    profile = resolve_profile(name)
    assert profile.name == name
    assert Profile.model_validate_json(profile.model_dump_json()) == profile
    assert set(profile.prompts.edit) == set(profile.cvsi.weights) == {"cirr", "circo", "fashioniq"}


def test_tiny_and_production_differ_in_values_only() -> None:
    small, large = tiny().model_dump(mode="json"), production().model_dump(mode="json")
    assert names(small) == names(large)
    assert small != large


def test_tiny_needs_nothing_from_elsewhere() -> None:
    profile = tiny()
    places = [profile.encoder.name, profile.captioner.model, profile.generator.model]
    for place in [*places, profile.mapping.checkpoint]:
        assert Path(place).is_relative_to(EMBEDDED)
        assert Path(place).exists()
    assert profile.generator.engine == "transformers"
    assert not profile.encoder.pretrained


def test_production_names_the_papers_models() -> None:
    profile = production()
    assert "quickgelu" in profile.encoder.name  # OpenAI's weights were trained with QuickGELU
    assert profile.encoder.pretrained == "openai"
    assert profile.captioner.model.startswith("Salesforce/blip2-opt-6.7b")
    assert profile.generator.engine == "openai"
    assert profile.cvsi.captions_per_image == 15


def test_small_runs_in_process_and_shares_its_checkpoints() -> None:
    profile = resolve_profile("small")
    assert profile.encoder.name == "ViT-B-32-quickgelu"
    assert profile.captioner == profile.instructcir.captioner
    assert profile.generator.model == profile.instructcir.rewriter.model
    assert {profile.captioner.engine, profile.generator.engine} == {"blip2", "transformers"}


def test_a_toml_file_extends_a_profile(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'extends = "production"\nroot = "s3://bucket/cirflow"\n'
        '[encoder]\nname = "ViT-B-32-quickgelu"\n'
        "[cvsi]\ncaptions_per_image = 5\n"
        "[cvsi.weights.circo]\nalpha = 0.5\n"
    )
    profile, base = resolve_profile(str(file)), production()
    assert profile.name == "mine"
    assert profile.root == "s3://bucket/cirflow"
    assert profile.encoder.name == "ViT-B-32-quickgelu"
    assert profile.encoder.pretrained == "openai"
    assert profile.cvsi.captions_per_image == 5
    circo = profile.cvsi.weights["circo"]
    assert (circo.alpha, circo.beta) == (0.5, base.cvsi.weights["circo"].beta)
    untouched = {"captioner", "generator", "prompts", "mapping", "shards", "allow_gaps"}
    assert profile.model_dump(include=untouched) == base.model_dump(include=untouched)
    assert profile.ensemble.n == 5


def test_settings_on_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "tiny"\n[shards]\ncaptions = 3\nfeatures = 4\n')
    profile = resolve_profile(str(file), {"shards.captions": 7})
    assert (profile.shards.captions, profile.shards.features) == (7, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extends = "tiny"\nrot = "a"', ["'rot'", "root", "encoder"]),
        ('extends = "tiny"\n[encoder]\nnme = "a"', ["'encoder.nme'", "encoder.name"]),
        ('extends = "tiny"\n[cvsi.weights.circco]\nalpha = 0.1', ["circco", "cvsi.weights.circo"]),
        ('extends = "tiny"\nencoder = "ViT-B-32"', ["'encoder' is a group", "encoder.name"]),
        ('extends = "tinny"', ["'tiny' or 'small' or 'production'", "'tinny'"]),
        ("[encoder]\nname = 'a'", ["must say which profile it extends"]),
        ("extends = tiny", ["is not TOML"]),
        (
            'extends = "tiny"\n[captioner]\nbatch_size = 0',
            ["captioner.batch_size", "greater"],
        ),
        ('extends = "tiny"\n[captioner]\nengine = "blip3"', ["captioner.engine", "'blip2'"]),
        ('extends = "tiny"\n[cvsi]\nsimilarity = "l2"', ["similarity", "'cosine'"]),
        ('extends = "tiny"\n[cvsi.weights.circo]\nalpha = 0.9', ["alpha 0.9", "negative"]),
    ],
)
def test_a_bad_profile_file_is_refused_with_what_is_known(
    tmp_path: Path, text: str, said: list[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ProfileError) as error:
        resolve_profile(str(file))
    assert all(part in str(error.value) for part in ["mine.toml", *said]), str(error.value)


def test_a_profile_of_another_encoding_is_named_with_its_line_and_a_mark_is_skipped(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes('extends = "tiny"\n# caf\xe9\n'.encode("latin-1"))
    with pytest.raises(ProfileError, match=r"mine\.toml, line 2 is not UTF-8"):
        resolve_profile(str(file))
    file.write_bytes(b'\xef\xbb\xbfextends = "tiny"\n')  # as Notepad writes it
    assert resolve_profile(str(file)).encoder == tiny().encoder


@pytest.mark.parametrize("value", ["nan", "NaN", "Infinity", "-inf"])
@pytest.mark.parametrize(
    "name", ["cvsi.weights.circo.alpha", "instructcir.weights.cirr", "encoder.pad_ratio"]
)
def test_a_number_that_is_none_is_refused_in_every_group(name: str, value: str) -> None:
    with pytest.raises(ProfileError, match=f"{name}.*finite"):
        resolve_profile("tiny", parse_assignments([f"{name}={value}"]))


def test_an_unknown_profile_and_an_unknown_setting() -> None:
    with pytest.raises(ProfileError, match=r"'huge'.*tiny, small, production"):
        resolve_profile("huge")
    with pytest.raises(ProfileError, match=r"'generator.temprature'.*generator.model"):
        resolve_profile("tiny", {"generator.temprature": 1})


def test_a_value_and_a_setting_inside_it_are_refused_together() -> None:
    with pytest.raises(ProfileError, match=r"encoder\.name lies in encoder, which is set to 'x'"):
        resolve_profile("tiny", {"encoder": "x", "encoder.name": "y"})


def test_assignments_are_json_where_they_parse_and_text_elsewhere() -> None:
    given = ["a=1", "b.c=true", "d=x=y", "e=", 'f=["p"]', "g=null", "h=1e-3"]
    assert parse_assignments(given) == {
        "a": 1,
        "b.c": True,
        "d": "x=y",
        "e": "",
        "f": ["p"],
        "g": None,
        "h": 0.001,
    }
    for bad in ("a", "=1", ""):
        with pytest.raises(ProfileError, match="key=value"):
            parse_assignments([bad])


@pytest.mark.parametrize("text", ['{"max_steps": 3', '["cvsi", "lincir"', '[{"name": "cirr"]'])
def test_json_that_is_broken_is_not_text(text: str) -> None:
    with pytest.raises(ProfileError, match=r"--set training: .* is not JSON: .*single quotes"):
        parse_assignments([f"training={text}"])
    template = "{caption} [MARK]"  # which begins as JSON does
    assert parse_assignments([f"a={template}"]) == {"a": template}


def test_where_tables_lie_and_where_engines_run_do_not_enter_what_they_make(
    tmp_path: Path,
) -> None:
    """Two machines with other folders, devices and batches share one table."""
    from tasks.profile_stages import caption_stage

    here = resolve_profile("tiny", {"root": str(tmp_path / "a")})
    there = resolve_profile(
        "tiny",
        {"root": str(tmp_path / "b"), "captioner.batch_size": 3, "shards.captions": 5},
    )
    other = resolve_profile("tiny", {"captions.seed": 1})
    one, same, changed = (caption_stage(p, "c").identity() for p in (here, there, other))
    assert one == same
    assert one != changed


def test_all_methods_leaves_out_what_the_small_models_cannot_serve() -> None:
    tiny, production = resolve_profile("tiny", {}), resolve_profile("production", {})
    assert "cvsi-code" not in runnable_methods(tiny)
    assert "cvsi" in runnable_methods(tiny)
    assert production.unsuited == ("ldre-code",)


def test_a_family_that_a_new_benchmark_brings_can_be_given_prompts_and_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = {
        "prompts.edit.sketches": "edit_short",
        "cvsi.weights.sketches.alpha": 0.5,
        "cvsi.weights.sketches.beta": 0.25,
        "cvsi.weights.sketches.gamma": 0.125,
        "instructcir.weights.sketches": 0.0,
    }
    with pytest.raises(ProfileError, match=r"unknown setting 'prompts\.edit\.sketches'"):
        resolve_profile("tiny", own)
    monkeypatch.setattr("flows.profiles.FAMILIES", ("cirr", "sketches"))
    chosen = resolve_profile("tiny", own)
    assert chosen.prompts.edit_of("sketches") == "edit_short"
    recipe = configured_method("cvsi-instructcir", chosen.cvsi, chosen.instructcir.weights)
    assert dict(recipe.recipe("sketches").query) == {
        "edited_captions": 0.5, "fine_grained": 0.25, "reference_image": 0.25}  # fmt: skip
    assert dict(recipe.recipe("sketches").gallery) == {"captions": 0.125, "image": 0.875}
    # Without them, an error says what to set.
    plain = resolve_profile("tiny")
    with pytest.raises(ValueError, match=r"set prompts\.edit\.sketches, or name one of these as"):
        plain.prompts.edit_of("sketches")
    with pytest.raises(ValueError, match=r"set cvsi\.weights\.sketches"):
        configured_method("cvsi", plain.cvsi).recipe("sketches")
    with pytest.raises(ProfileError, match=r"did you mean 'cvsi\.weights\.sketches'"):
        resolve_profile("tiny", {"cvsi.weights.sketchs": {"alpha": 1}})


def test_a_profile_file_switches_engines_and_a_setting_on_top_switches_again(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'extends = "production"\n'
        "[captioner]\ndtype = 'bfloat16'\nbatch_size = 4\n"
        "[generator]\nengine = 'transformers'\nmodel = '/models/vicuna'\ndtype = 'float16'\n"
        "[instructcir.captioner]\nengine = 'openai'\nmodel = 'llava'\n"
        "base_url = 'http://127.0.0.1:8001/v1'\ntimeout = 30\n"
    )
    mine = resolve_profile(str(file))
    assert mine.captioner == Blip2Settings(
        model="Salesforce/blip2-opt-6.7b-coco", dtype="bf16", batch_size=4
    )
    assert mine.generator == TransformersSettings(model="/models/vicuna", dtype="fp16")
    assert mine.instructcir.captioner == OpenAIImagesSettings(
        model="llava", base_url="http://127.0.0.1:8001/v1", timeout=30
    )
    llava = {"instructcir.captioner.engine": "llava", "instructcir.captioner.device": "cpu"}
    again = resolve_profile(str(file), llava).instructcir.captioner
    assert again == LlavaSettings(model="llava", device="cpu")
    ignored = resolve_profile(str(file), {"instructcir.rewriter.device": "cpu"})
    assert ignored == mine


def test_every_patience_of_the_client_is_a_setting_and_none_is_identity() -> None:
    patience = {
        "timeout": 1.0,
        "connect_seconds": 1.0,
        "transport_retries": 1,
        "attempts": 1,
        "health_wait_seconds": 1.0,
        "health_poll_seconds": 1.0,
        "breaker_errors": 1,
        "concurrency": 1,
        "api_key_env": "VLLM_API_KEY",
    }
    changed = resolve_profile("production", {f"generator.{k}": v for k, v in patience.items()})
    before, after = production().generator, changed.generator
    assert {name for name, value in after if value != getattr(before, name)} == set(patience)
    assert after.fingerprint == before.fingerprint
