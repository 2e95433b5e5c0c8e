"""Rows of the ledger say in words what differs between them."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.scoring import spec_words
from tasks.scoring.making import differences, how_made, named
from tasks.scoring.selection import chosen, pivot

ENCODER = {"model": "ViT-B-32", "dtype": "fp32", "preprocess": {"geometry": "target_pad"}}


def captions(n: int, model: str = "local-0123456789ab", seed: int = 0) -> dict[str, Any]:
    return {
        "producer": "cirflow/captions/1",
        "captioner": {"engine": "transformers-blip2", "model": model, "dtype": "fp16"},
        "sampling": {"n": n, "mode": "nucleus", "seed": seed, "prompt": ""},
    }


SPECS: dict[str, dict[str, Any]] = {
    "few": captions(1),
    "many": captions(15),
    "edits": {
        "producer": "cirflow/rewrites/2",
        "generator": {"engine": "openai-server", "model": "gpt-x"},
        "prompt": {"prompt_sha256": "89e9a6fc" + "0" * 56},
        "step": "edit",
        "settings": {"temperature": 0.5, "max_new_tokens": 48, "parsing": "strict", "seed": 3},
    },
    "edited": {
        "producer": "cirflow/query_features/1",
        "encoder": ENCODER,
        "upstream": {"captions": "many", "edits": "edits"},
        "contents": {"edits": "per_caption", "objects": "", "all_orders": False},
        "mapping": {},
    },
    "targets of 15": {"encoder": ENCODER, "captions": "many"},
    "target of 1": {"encoder": ENCODER, "captions": "few"},
}


def ranking(gallery: str, query: str = "edited") -> dict[str, Any]:
    return {
        "query": {"edited_captions": [0.6, query]},
        "gallery": {"captions": [1.0, gallery]},
        "norms": {},
        "similarity": "cosine",
        "exclude_reference": True,
        "queries": "aaaaaaaaaaaa",
        "galleries": "bbbbbbbbbbbb",
    }


def entry(run: str, made: dict[str, str], **others: str) -> dict[str, Any]:
    same = {"method": "cvsi", "backbone": "B", "benchmark": "cirr", "split": "val", "world": "real"}
    return {"run": run, "made": made, **same, **others}


def test_every_facet_is_told_from_specs() -> None:
    assert how_made(ranking("target of 1"), SPECS.get) == {
        "captioner": "transformers-blip2 local-0123456789ab",
        "query_captions": "15 nucleus",
        "target_captions": "1 nucleus",
        "captioning": "seed 0",
        "generator": "openai-server gpt-x",
        "edit_prompt": "prompt 89e9a6fc",
        "asked_about": "edits per_caption",
        "answers": "temperature 0.5, 48 tokens, seed 3",
        "texts": "annotated",
        "weights": "0.6 edited_captions | 1 captions, cosine",
        "preprocessing": "target_pad",
        "precision": "fp32",
        "reference": "taken out",
        "engines": "captioner dtype fp16",
        "versions": "captions/1 and query_features/1 and rewrites/2",
        "data": "queries aaaaaaaa, gallery bbbbbbbb",
    }


def test_fewer_captions_of_a_target_than_were_made_are_said() -> None:
    some = SPECS | {"five": {"encoder": ENCODER, "captions": "many", "first": 5}}
    made = how_made(ranking("five"), some.get)
    assert made["target_captions"] == "first 5 of 15 nucleus"
    assert made["query_captions"] == "15 nucleus"


def test_only_the_facet_that_differs_is_said() -> None:
    one, other = (how_made(ranking(g), SPECS.get) for g in ("target of 1", "targets of 15"))
    rows = [entry("a", one), entry("b", other), entry("c", other, method="ldre")]
    assert differences(rows) == [
        "captions of a target 1 nucleus",
        "captions of a target 15 nucleus",
        "",
    ]


def test_a_facet_that_one_row_lacks_is_none() -> None:
    rows = [entry("a", {"network": "x"}), entry("b", {"network": "x", "trained_on": "9 steps"})]
    assert differences(rows) == ["trained on none", "trained on 9 steps"]


def test_rows_that_agree_in_every_facet_are_told_by_their_run() -> None:
    rows = [entry("0123456789", {}), entry("abcdefghij", {})]
    assert differences(rows) == ["run 01234567", "run abcdefgh"]


def test_rows_of_which_two_agree_in_every_facet_are_all_told_apart() -> None:
    rows = [entry("0123456789", {"weights": "a"}), entry("abcdefghij", {"weights": "a"})]
    assert differences([*rows, entry("klmnopqrst", {"weights": "b"})]) == [
        "weights a, run 01234567",
        "weights a, run abcdefgh",
        "weights b",
    ]


def test_details_are_told_only_where_all_else_agrees() -> None:
    rows = [
        entry("a", {"generator": "x", "engines": "generator dtype fp16"}),
        entry("b", {"generator": "y", "engines": "generator dtype fp32"}),
    ]
    assert differences(rows) == ["text generator x", "text generator y"]
    third = entry("c", {"generator": "y", "engines": "generator dtype bf16"})
    assert differences([*rows, third]) == [
        "text generator x",
        "text generator y, engines run with generator dtype fp32",
        "text generator y, engines run with generator dtype bf16",
    ]


@pytest.mark.parametrize(
    ("table", "part", "values", "told"),
    [
        ("edited", "encoder", {"preprocess": {"geometry": "target_pad", "size": [224, 224]}},
         "encoder size 224/224"),
        ("edited", "encoder", {"engine": "open_clip 3.3.0"}, "encoder engine open_clip 3.3.0"),
        ("edited", "encoder", {"config_sha256": "c" * 64}, "encoder config_sha256 cccccccc"),
        ("edits", "settings", {"max_words": 50}, "answers with max_words 50"),
        ("edits", "settings", {"stop": ["\n\n"]}, r"answers with stop '\n\n'"),
    ],
)  # fmt: skip
def test_what_else_an_engine_depends_on_is_told(
    table: str, part: str, values: dict[str, Any], told: str
) -> None:
    changed = {**SPECS[table], part: {**SPECS[table][part], **values}}
    mades = [
        how_made(ranking("target of 1"), specs.get) for specs in (SPECS, {**SPECS, table: changed})
    ]
    words = differences([entry("a", mades[0]), entry("b", mades[1])])
    assert words[0] == "engines run with captioner dtype fp16"
    assert told in words[1]
    assert words[1].isprintable()


def test_weights_that_differ_a_little_are_told_apart() -> None:
    told = set()
    for weight in (0.6, 0.6004):
        sums = {**ranking("target of 1"), "query": {"edited_captions": [weight, "edited"]}}
        told.add(how_made(sums, SPECS.get)["weights"])
    assert len(told) == 2


def test_captions_of_another_seed_are_told_apart() -> None:
    specs = {**SPECS, "again": captions(15, seed=7), "targets again": {"captions": "again"}}
    one = how_made(ranking("targets of 15"), specs.get)
    other = how_made(ranking("targets again"), specs.get)
    assert differences([entry("a", one), entry("b", other)]) == [
        "captions drawn with seed 0",
        "captions drawn with seed 0 and seed 7",
    ]


def test_a_late_fusion_names_the_facets_of_both_parts() -> None:
    part = {"network": {"network": "n", "config_sha256": "c", "files": {}, "branch": "ema"}}
    specs = SPECS | {"reformulated": {**part, "combined": True}, "images": part}
    fused = {
        "parts": [
            [0.8, ranking("targets of 15")],
            [0.2, {"query": {"r": [1, "reformulated"]}, "gallery": {"i": [1, "images"]}}],
        ]
    }
    made = how_made(fused, specs.get)
    assert made["branch"] == "ema"
    assert made["target_captions"] == "15 nucleus"
    assert made["weights"].startswith("0.8 of 0.6 edited_captions | 1 captions, cosine; 0.2 of 1 r")


def test_specs_that_are_gone_are_said_to_be() -> None:
    made = how_made(ranking("targets of 15"), {}.get)
    assert made["captioner"] == "not recorded"
    assert made["weights"] == "0.6 edited_captions | 1 captions, cosine"


def test_folders_have_the_names_that_people_know() -> None:
    made = {"generator": "transformers local-866c1ec7b8c5", "edit_prompt": "prompt 89e9a6fc"}
    names = {"local-866c1ec7b8c5": "llama", "prompt 89e9a6fc": "edit"}
    assert named(made, names) == {
        "generator": "transformers llama 866c1ec7",
        "edit_prompt": "edit (89e9a6fc)",
    }


ROWS = [
    entry("a", {"generator": "llama 2", "target_captions": "1"}),
    entry("b", {"generator": "llama 2", "target_captions": "15"}),
    entry("c", {"generator": "gpt", "target_captions": "15"}),
    entry("d", {}, method="image-only"),
]


@pytest.mark.parametrize(
    ("where", "runs"),
    [
        ([], "abcd"),
        (["generator=llama"], "ab"),
        (["generator==llama"], ""),
        (["generator=llama", "target_captions==15"], "b"),
        (["target_captions=none"], "d"),
        (["method==cvsi"], "abc"),
    ],
)
def test_rows_are_chosen_by_facets(where: list[str], runs: str) -> None:
    assert [row["run"] for row in chosen(ROWS, where)] == list(runs)


@pytest.mark.parametrize(
    ("where", "message"),
    [("genrator=x", "did you mean 'generator'"), ("generator", "is not FACET=VALUE")],
)
def test_a_condition_that_is_none_is_refused(where: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(ROWS, [where])


def test_a_pivot_puts_rows_side_by_side_that_agree_in_all_else() -> None:
    values, sides = pivot(ROWS, "target_captions")
    assert values == ["1", "15", "none"]
    assert [{v: e["run"] for v, e in side.entries.items()} for side in sides] == [
        {"1": "a", "15": "b"},
        {"15": "c"},
        {"none": "d"},
    ]
    assert [side.differs for side in sides] == [
        "text generator llama 2",
        "text generator gpt",
        "",
    ]


def test_a_pivot_loses_no_row_of_those_that_agree_in_every_facet() -> None:
    rows = [entry(run, {"target_captions": "9 x"}) for run in ("0123456789", "abcdefghij")]
    rows.append(entry("klmnopqrst", {"target_captions": "10 x"}))
    values, sides = pivot(rows, "target_captions")
    assert values == ["9 x", "10 x"]
    assert [{v: e["run"][0] for v, e in side.entries.items()} for side in sides] == [
        {"9 x": "0", "10 x": "k"},
        {"9 x": "a"},
    ]
    assert [side.differs for side in sides] == ["run 01234567", "run abcdefgh"]


def test_a_pivot_by_network_does_not_keep_apart_what_they_were_trained_on() -> None:
    made = ({"network": "x", "trained_on": "few"}, {"network": "y", "trained_on": "many"})
    (side,) = pivot([entry(own["network"], own) for own in made], "network")[1]
    assert list(side.entries) == ["x", "y"]


def test_every_setting_of_tokens_pictures_and_samples_is_told() -> None:
    """Two tables of different keys never have the same words."""
    refining = {"steps": 30, "learning_rate": 0.01, "temperature": 0.25, "coarse": "item"}
    sets = {"network_of_sets": {"weights_sha256": "ab" * 32}, "refining": refining}
    words = spec_words.mapping(sets)
    for name, value in {"steps": 9, "learning_rate": 0.1, "temperature": 1, "coarse": "x"}.items():
        assert spec_words.mapping(sets | {"refining": refining | {name: value}}) != words
    editor = {"engine": "instruct-pix2pix", "model": "m", "steps": 2, "resolution": 64}
    shown = spec_words.editor({"editor": editor})
    assert spec_words.editor({"editor": editor | {"resolution": 128}}) != shown
    details = spec_words.engine_details({"editor": editor | {"dtype": "fp32"}})
    assert details == "editor dtype fp32"
    compodiff = {"denoiser": {"weights_sha256": "x"}, "sampling": {}}
    own = spec_words.denoiser({"compodiff": compodiff})
    models = [{"model": "clip", "files": files * 20} for files in ("1", "2")]
    told = [spec_words.denoiser({"compodiff": compodiff | {"text_model": m}}) for m in models]
    assert told == [f"{own}, texts by clip {each}" for each in ("1" * 8, "2" * 8)]
