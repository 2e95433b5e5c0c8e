"""What `evaluate-matrix` varies: every combination once, with a name and settings of its own."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from embedded_world.benchmarks import WorldSize, write_world
from flows.forms import Backbone, BenchmarkChoice, Captioner
from flows.requests.combinations import Vary, combinations
from flows.requests.rerun_backbones import evaluate_matrix

SIZE = WorldSize(subsets=1, circo_queries=2, fashion_queries=1, distractors=4)


@pytest.fixture(scope="module")
def circo(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkChoice:
    """A drawn benchmark."""
    world = write_world(tmp_path_factory.mktemp("matrix") / "world", SIZE, seed=5)
    return BenchmarkChoice(name="circo", folder=str(world["circo"]))


def matrix(tmp_path: Path, circo: BenchmarkChoice, **more: Any) -> tuple[Any, ...]:
    given = {"settings": {"root": str(tmp_path / "tables")}, "out": str(tmp_path / "out"), **more}
    return evaluate_matrix([Backbone()], [circo], **given)


def test_nothing_varied_is_one_evaluation_without_a_name() -> None:
    (only,) = combinations(Vary(), ["circo"])
    assert (only.name, only.settings, only.network) == ("", {}, None)


def test_places_of_one_last_name_are_told_apart_by_their_folders(
    tmp_path: Path, circo: BenchmarkChoice
) -> None:
    for name, more in (("a/short.md", ""), ("b/short.md", " Be brief."), ("b/SHORT.md", " Now.")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Edit {caption} by {text}." + more)
    prompts = [str(tmp_path / name) for name in ("a/short.md", "b/short.md")]
    asked = matrix(tmp_path, circo, vary=Vary(edit_prompts=tuple(prompts)), methods=("cvsi",))
    assert [each.varied for each in asked] == ["edit prompt a/short", "edit prompt b/short"]
    assert [each.profile.prompts.edit["circo"] for each in asked] == prompts
    networks = Vary(networks=("runs/one/network", "runs/two/network"))
    names = [each.name for each in combinations(networks, ["circo"])]
    assert names == ["network one/network", "network two/network"]
    # Folders have names of fewer characters; none is written over.
    cases = Vary(edit_prompts=(str(tmp_path / "b/short.md"), str(tmp_path / "b/SHORT.md")))
    folders = [each.out for each in matrix(tmp_path, circo, vary=cases, methods=("cvsi",))]
    assert len(set(folders)) == 2
    again = (prompts[0], str(tmp_path / "b/../a/short.md"))
    with pytest.raises(ValueError, match="two choices of a list are called edit prompt short"):
        list(combinations(Vary(edit_prompts=again), ["circo"]))


def test_a_backbone_that_is_named_twice_is_refused(circo: BenchmarkChoice) -> None:
    with pytest.raises(ValueError, match="backbones has one twice"):
        evaluate_matrix([Backbone(), Backbone()], [circo])


def test_every_combination_has_its_settings_and_its_folder(
    tmp_path: Path, circo: BenchmarkChoice
) -> None:
    prompt = tmp_path / "short.md"
    prompt.write_text("Edit {caption} by {text}.\nAnswer:")
    llm = {"engine": "openai", "model": "gpt-4o", "base_url": "http://127.0.0.1:1/v1"}
    vary = Vary(
        generators=({}, llm),
        query_captions=(1, 3),
        target_captions=(2,),
        edit_prompts=(str(prompt),),
    )
    asked = matrix(tmp_path, circo, vary=vary, methods=("cvsi", "cirevl"))
    found = [
        (
            each.profile.generator.engine,
            each.profile.cvsi.captions_per_image,
            each.profile.cvsi.target_captions,
            each.profile.prompts.edit["circo"],
        )
        for each in asked
    ]
    engines = (matrix(tmp_path, circo)[0].profile.generator.engine, "openai")
    assert found == [
        (engine, n, 2, str(prompt)) for engine, n in itertools.product(engines, (1, 3))
    ]
    assert len({each.out for each in asked}) == 4
    assert asked[3].varied == (
        "answers by gpt-4o, 3 captions of a query, 2 captions of a target, edit prompt short"
    )
    assert asked[3].profile.generator.model == "gpt-4o"


def test_what_is_said_of_the_profiles_model_does_not_hold_for_another(
    tmp_path: Path, circo: BenchmarkChoice
) -> None:
    server = {"engine": "openai", "base_url": "http://127.0.0.1:1/v1"}
    settings = {f"generator.{name}": value for name, value in server.items()}
    settings |= {"generator.model": "first", "generator.identity": "sha of first"}
    (asked,) = matrix(
        tmp_path,
        circo,
        settings=settings | {"root": str(tmp_path)},
        vary=Vary(generators=({**server, "model": "second"},)),
        methods=("cirevl",),
    )
    assert (asked.profile.generator.model, asked.profile.generator.identity) == ("second", "")


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ({"sizes": (10,)}, "name vary.triplets too"),
        ({"networks": ("a",), "triplets": ("b",)}, "vary.networks or vary.triplets"),
        ({"triplets": ("nowhere.json",)}, "no such file"),
        ({"query_captions": (3, 3)}, "two choices of a list are called 3 captions of a query"),
        ({"generators": ({"engine": "opnai"},)}, "openai"),
        ({"captioners": (Captioner(), Captioner())}, "two choices"),
    ],
)
def test_lists_that_say_nothing_or_too_much_are_refused(vary: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(combinations(Vary(**vary), ["circo"]))
    with pytest.raises(ValidationError):
        Vary(query_captions=(0,))


def test_a_setting_that_a_choice_misspells_is_named(tmp_path: Path, circo: BenchmarkChoice) -> None:
    with pytest.raises(ValueError, match=r"generator\.modle"):
        matrix(tmp_path, circo, vary=Vary(generators=({"modle": "x"},)))


def test_networks_trained_on_parts_of_a_set_are_planned_before_they_exist(
    tmp_path: Path, circo: BenchmarkChoice
) -> None:
    triplets = tmp_path / "triplets.json"
    triplets.write_text(
        f'{{"root": "{tmp_path}", "spec_key": "0123456789abcdef0123",'
        ' "collections": ["a"], "count": 90}'
    )
    settings = {"root": str(tmp_path / "tables"), "instructcir.checkpoint": ""}
    asked = matrix(
        tmp_path,
        circo,
        settings=settings,
        vary=Vary(triplets=(str(triplets),), sizes=(40, 80), training={"training": {"epochs": 2}}),
    )
    assert [each.network.triplets.count for each in asked] == [40, 80]
    assert [each.network.groups.training.epochs for each in asked] == [2, 2]
    assert [each.varied for each in asked] == [
        "trained on 40 triplets 01234567", "trained on 80 triplets 01234567"
    ]  # fmt: skip
    for each in asked:
        assert "instructcir" in each.methods
        assert "instructcir" not in each.left_out
    (without,) = matrix(tmp_path, circo, settings=settings)
    assert "instructcir" in without.left_out


def test_a_setting_that_dumps_leave_out_at_its_default_can_be_set() -> None:
    from flows.profiles import plain_values, resolve_profile, setting_names

    profile = resolve_profile("tiny", {"cvsi.target_captions": 4})
    assert profile.cvsi.target_captions == 4
    assert "cvsi.target_captions" in setting_names(resolve_profile("tiny"))
    assert type(profile).model_validate(plain_values(profile)) == profile
