"""Run dialogs: what is chosen from lists, and that anything else is refused before a run exists.

`validate` is what Prefect's server calls on the parameters of a run that somebody asks for.
"""

from __future__ import annotations

import importlib
import json
import re
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic_core import ArgsKwargs

from deployments.cli import main
from deployments.commands.run import FLOWS
from deployments.flow_parameters import fitted, parameter_texts
from flows.forms import Backbone, BenchmarkChoice, Captioning, Clip, Work, with_choices
from flows.profiles import resolve_profile
from models.composed.registry import SYSTEMS
from models.retrieval.methods import runnable_names

CIRR = {"benchmark": "cirr", "folder": "x"}
RERUN = {"backbone": {}, "benchmarks": [{"name": "cirr", "folder": "x"}]}
MATRIX = {"backbones": [{}], "benchmarks": RERUN["benchmarks"]}
TRIPLETS = {"triplets": "t.json"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "ingest": {"source": "photos", "name": "photos"},
    "embed-gallery": {"collection": "photos"},
    "generate-triplets": {"collections": ["photos"], "count": 9},
    "train-reformulation": TRIPLETS,
    "train-composed": {**TRIPLETS, "system": "covr"},
    "train-compodiff": TRIPLETS,
    "train-systems": TRIPLETS,
    "train-weights": TRIPLETS,
    "score-benchmark": CIRR,
    "rerun-backbone": RERUN,
    "evaluate-matrix": MATRIX,
    "sweep-fusion": CIRR,
    "scaling": {**TRIPLETS, "sizes": [10]},
    "evaluate-world": {"seeds": [0]},
    "paper": {"paper": "cvsi"},
}
"""What a person must fill in."""


BENCHMARK_NAMES = "cirr, circo, fashioniq, icir, genecis, lasco, pinpoint"
SPLIT_NAMES = "val, test1, test, change_attribute, focus_attribute, change_object, focus_object"


def flow_of(name: str) -> Any:
    entry = FLOWS[name]
    return getattr(importlib.import_module(entry.module), entry.function)


def server_check(name: str, given: dict[str, Any]) -> None:
    from prefect.utilities.schema_tools.validation import validate

    validate(given, flow_of(name).parameters.model_dump_for_openapi(), raise_on_error=True)


def changed(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**base, **changes}


@pytest.mark.parametrize("name", FLOWS)
def test_no_choice_hides_in_a_free_text(name: str) -> None:
    """The dialog's schema holds the choices that the flow's code knows."""
    fields = {
        key: re.sub(r" ?(Required|Default: .*)\.$", "", text)
        for key, text in parameter_texts(flow_of(name))
    }
    parameters = flow_of(name).parameters.properties
    for key, choices in {
        "benchmark": BENCHMARK_NAMES,
        "split": SPLIT_NAMES,
        "keywords": "preset, function_words, spacy",
        "kind": "ensemble, single, instructcir",
        "dtype": "auto, fp32, bf16, fp16, float32, bfloat16, float16",
    }.items():
        if key in parameters:
            assert fields[key].endswith(f"One of {choices}.")
    for key in ("methods", "others"):
        if key in parameters:
            listed = fields[key].partition("One of ")[2].rstrip(".").split(", ")
            assert listed == runnable_names()
    if "captioning" in parameters:
        assert fields["captioning.engine"].endswith("One of profile, blip2, llava, openai.")
    if "benchmarks" in parameters and name != "evaluate-world":
        assert fields["benchmarks[].name"].endswith(f"One of {BENCHMARK_NAMES}.")
        assert fields["benchmarks[].split"].endswith(f"One of {SPLIT_NAMES}.")


@pytest.mark.parametrize("dtype", ["auto", "fp32", "float32", "bfloat16"])
def test_a_stored_schedule_may_name_a_precision_as_torch_does(dtype: str) -> None:
    given = {"pairs": "p.jsonl", "dtype": dtype}
    server_check("finetune-rewriter", given)
    short = {"float32": "fp32", "bfloat16": "bf16"}.get(dtype, dtype)
    assert flow_of("finetune-rewriter").validate_parameters(given)["dtype"] == short
    assert fitted(FLOWS["finetune-rewriter"].request(), given) == given


@pytest.mark.parametrize("name", FLOWS)
def test_the_dialog_starts_from_values_that_are_accepted(name: str) -> None:
    """A form that is sent as it opens: every default that the schema shows, as JSON."""
    from prefect.utilities.schema_tools.validation import validate

    schema = flow_of(name).parameters.model_dump_for_openapi()
    shown = {k: field["default"] for k, field in schema["properties"].items() if "default" in field}
    given = json.loads(json.dumps(shown)) | EXAMPLES.get(name, {})
    validate(given, schema, raise_on_error=True, allow_none_with_default=True)
    flow_of(name).validate_parameters(given)


def as_it_opens(name: str) -> dict[str, Any]:
    """What Prefect's form sends untouched: every field that shows a value, those of groups too."""
    schema = flow_of(name).parameters.model_dump_for_openapi()

    def shown(field: dict[str, Any]) -> Any:
        inner = field.get("properties", {})
        values = {key: own["default"] for key, own in inner.items() if "default" in own}
        # A switch has no third state.
        switches = {key: False for key, own in inner.items() if own.get("type") == "boolean"}
        return switches | values if inner else field["default"]

    fields = schema["properties"].items()
    sent = {key: shown(field) for key, field in fields if "default" in field}
    return json.loads(json.dumps(sent)) | EXAMPLES.get(name, {})


TRAININGS = [
    ("train-reformulation", {}),
    ("train-compodiff", {}),
    ("train-mapping", {}),
    *[("train-mapping", {"system": name}) for name in ("pic2word", "searle", "palavra")],
    *[("train-composed", {"system": name}) for name in SYSTEMS],
]


@pytest.mark.parametrize(("name", "chosen"), TRAININGS)
def test_an_untouched_form_asks_for_what_the_command_line_asks(
    name: str, chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Published schedules stay as they are, although the form sends what it shows of them."""
    entry = FLOWS[name]
    request = entry.request()
    module = importlib.import_module(request.__module__)
    found = object()
    for check in ("triplet_set_of", "require_collections", "require_words", "_require_start"):
        if hasattr(module, check):
            monkeypatch.setattr(module, check, lambda *_: found)
    required = {**EXAMPLES.get(name, {}), **chosen, "settings": {"root": str(tmp_path)}}
    if name == "train-mapping":
        required["collection"] = "photos"
        required["settings"] |= {"inversion.concepts": "words.txt"}
    bare = request(**required)
    flow_of(name).validate_parameters(as_it_opens(name) | required)
    assert as_models(request)(**(as_it_opens(name) | required)) == bare


def as_models(request: Any) -> Any:
    """The request as a flow calls it: plain JSON becomes the models of its parameters."""
    return lambda **given: TypeAdapter(request).validate_python(ArgsKwargs((), given))


@pytest.mark.parametrize(
    ("name", "given", "allowed"),
    [
        ("score-benchmark", changed(CIRR, benchmark="cir"), "'cirr', 'circo', 'fashioniq'"),
        ("score-benchmark", changed(CIRR, split="dev"), "'val', 'test1', 'test'"),
        ("score-benchmark", changed(CIRR, methods=["cvs"]), "'cvsi', 'cvsi-code'"),
        ("score-benchmark", changed(CIRR, captioning={"engine": "x"}), "'blip2', 'llava'"),
        ("score-benchmark", changed(CIRR, captioning={"per_image": -1}), "minimum of 0"),
        ("score-benchmark", changed(CIRR, work={"shard_size": -1}), "minimum of 0"),
        ("rerun-backbone", changed(RERUN, backbone={"nam": "ViT-B-32"}), "nam"),
        ("rerun-backbone", changed(RERUN, benchmarks=[{"name": "a", "folder": "x"}]), "'cirr'"),
        ("evaluate-matrix", changed(MATRIX, methods=["palavr"]), "'image-only'"),
        ("sweep-fusion", changed(CIRR, method="lincir"), "'cvsi', 'cvsi-instructcir'"),
        ("embed-gallery", {"collection": "a", "methods": ["cvs"]}, "'lincir'"),
        ("backfill-captions", {"kind": "both"}, "'ensemble', 'single', 'instructcir'"),
        ("backfill-captions", {"selector": {"which": "old"}}, "'missing', 'failed', 'stale'"),
        ("train-mapping", {"masking": "random"}, "'offsets', 'substring'"),
        ("train-mapping", {"preset": "lincr"}, "'cirflow', 'lincir'"),
        ("train-mapping", {"weight_decay": -1}, "minimum of 0"),
        ("rerun-backbone", changed(RERUN, mapping_steps=0), "minimum of 1"),
        ("train-compodiff", changed(TRIPLETS, joined=-1), "minimum of 0"),
        ("train-weights", changed(TRIPLETS, n=0), "minimum of 1"),
        ("scaling", changed(TRIPLETS, sizes=[0]), "minimum of 1"),
        ("train-reformulation", changed(TRIPLETS, network={"gate": "open"}), "'zero_init'"),
        ("train-reformulation", changed(TRIPLETS, training={"epoch": 1}), "epoch"),
        ("train-reformulation", changed(TRIPLETS, run={"strategy": "dp"}), "'ddp', 'fsdp'"),
        ("finetune-rewriter", {"dtype": "int8"}, "'bf16'"),
        ("finetune-rewriter", {"tuning": {"ranks": 4}}, "ranks"),
        ("evaluate-world", {"seeds": [0], "benchmarks": ["cir"]}, "'cirr'"),
    ],
)
def test_the_server_refuses_and_says_what_is_allowed(
    name: str, given: dict[str, Any], allowed: str
) -> None:
    from prefect.exceptions import ParameterTypeError
    from prefect.utilities.schema_tools.validation import ValidationError

    with pytest.raises(ValidationError) as refused:
        server_check(name, given)
    assert allowed in str(refused.value)
    with pytest.raises(ParameterTypeError):
        flow_of(name).validate_parameters(given)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        (
            "rerun-backbone",
            changed(RERUN, benchmarks=[{"name": "circo", "folder": "x", "split": "test1"}]),
            "unknown split of circo 'test1'; did you mean 'test'",
        ),
        ("rerun-backbone", changed(RERUN, backbone={"pretrained": "openai"}), "needs the backbone"),
        ("score-benchmark", changed(CIRR, methods=["palavr"]), "did you mean 'palavra'"),
        ("score-benchmark", changed(CIRR, captioning={"engine": "blip2"}), "a model goes with"),
        (
            "train-reformulation",
            changed(TRIPLETS, network={"gaet": "none"}),
            "unknown setting of network 'gaet'; did you mean 'gate'",
        ),
        (
            "train-reformulation",
            changed(TRIPLETS, training={"seed": 1}),
            "give seed as a parameter, not in training",
        ),
        ("train-reformulation", changed(TRIPLETS, loss={"temperature": 0}), "greater than 0"),
    ],
)
def test_what_no_list_can_say_is_refused_before_the_flow_begins(
    name: str, given: dict[str, Any], said: str
) -> None:
    from prefect.exceptions import ParameterTypeError

    with pytest.raises(ParameterTypeError, match=said):
        flow_of(name).validate_parameters(given)


def test_a_run_with_a_wrong_value_is_not_created(prefect_api: None) -> None:
    """Once with a real server: a deployment as `prefect.yaml` makes it, and a run asked of it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
    from prefect.exceptions import PrefectHTTPStatusError

    flow = flow_of("backfill-captions")
    with get_client(sync_client=True) as client:
        made = client.create_deployment(
            flow_id=client.create_flow(flow),
            name="refusals",
            entrypoint="flows.backfill_captions.backfill_captions",
            parameter_openapi_schema=flow.parameters.model_dump_for_openapi(),
            enforce_parameter_schema=True,
        )
        for given, allowed in (
            ({"kind": "both"}, "'ensemble', 'single', 'instructcir'"),
            ({"captioning": {"per_image": 1000}}, "maximum of 100"),
            ({"selector": {"wich": "failed"}}, "wich"),
        ):
            with pytest.raises(PrefectHTTPStatusError) as refused:
                client.create_flow_run_from_deployment(made, parameters=given)
            assert allowed in refused.value.response.text
        only = DeploymentFilter(id=DeploymentFilterId(any_=[made]))
        assert client.read_flow_runs(deployment_filter=only) == []
        run = client.create_flow_run_from_deployment(made, parameters={"kind": "single"})
        assert run.parameters["kind"] == "single"


# --------------------------------------------------------------------------- what a choice changes


def test_choices_lie_on_top_of_settings() -> None:
    settings = {"encoder.name": "ViT-L-14", "allow_gaps": 0.5, "shards.captions": 7}
    forms = (
        Backbone(name="ViT-B-32", pretrained="openai", mapping="phi.pt"),
        Captioning(engine="llava", model="org/llava", per_image=5),
        Work(shard_size=32, allow_gaps=0.1),
    )
    profile = resolve_profile("tiny", with_choices(settings, *forms))
    assert (profile.encoder.name, profile.encoder.pretrained) == ("ViT-B-32", "openai")
    assert profile.mapping.checkpoint == "phi.pt"
    assert (profile.captioner.engine, profile.captioner.model) == ("llava", "org/llava")
    assert profile.captioner.device == "cpu"  # where it runs stays as it was
    assert profile.ensemble.n == 5
    assert (profile.shards.captions, profile.shards.features, profile.allow_gaps) == (32, 32, 0.1)


def test_nothing_chosen_changes_nothing() -> None:
    settings = {"encoder.name": "ViT-L-14", "encoder.pretrained": "openai", "allow_gaps": 0.5}
    assert with_choices(settings, Clip(), Backbone(), Captioning(), Work()) == settings


def test_a_benchmark_is_found_from_anywhere(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    ref = BenchmarkChoice(name="circo", folder="data/circo").ref(resolve_profile("tiny"))
    assert ref.root == str(tmp_path / "data" / "circo")


# --------------------------------------------------------------------------- the command line


def test_the_command_line_lists_choices_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "rerun-backbone", "--list"]) == 0
    page = " ".join(capsys.readouterr().out.split())  # lines are filled to the page's width
    assert " backbone.name: open_clip's name (`ViT-L-14`)" in page
    assert f"One of {SPLIT_NAMES}. Default: val. benchmarks[].collection:" in page
    assert "One of profile, blip2, llava, openai. Default: profile. captioning.model:" in page
    assert " encoder.image_batch = 128 Images in one forward pass. encoder.channels_last" in page
    assert main(["run", "train-reformulation", "--list"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "`none` is the paper. One of none, zero_init. Default: none. network.text_mask:" in page
    assert " training.keep: Publish the step with the best validation, or the last one." in page
    assert "training.epochs" not in page  # a parameter of its own


def test_texts_name_what_is_allowed_and_what_stands_where_nothing_is_given() -> None:
    texts = dict(parameter_texts(flow_of("score-benchmark")))
    assert (
        "fashioniq: join, gallery, empty_side, categories, exclude_reference." in texts["options"]
    )
    assert "`cirflow run FLOW --list`" in texts["settings"]
    texts = dict(parameter_texts(flow_of("train-composed")))
    assert "transagg 64;" in texts["training.batch_size"]
    assert '; transagg: mask "masked", trained "text", layers 2, ' in texts["network"]
    assert "Default" not in texts["training.batch_size"]
    assert texts["training.seed"].endswith("Default: 0.")
    texts = dict(parameter_texts(flow_of("train-compodiff")))
    assert texts["training.batch_size"].endswith("Default: 128.")
    for name in FLOWS:
        said = " ".join(dict(parameter_texts(flow_of(name))).get("out", "").split())
        if "empty: out/" in said:
            assert "in the UI a folder of the run's own below it" in said


def test_values_are_fitted_to_their_parameters() -> None:
    given = {"collection": 2024, "methods": "cvsi, lincir", "work": {"shard_size": 8}}
    assert fitted(FLOWS["embed-gallery"].request(), given) == {
        "collection": "2024",
        "methods": ["cvsi", "lincir"],
        "work": {"shard_size": 8},
    }
    given = {"seeds": 5, "benchmarks": "cirr", "subsets": 9, "out": True}
    assert fitted(FLOWS["evaluate-world"].request(), given) == {
        "seeds": [5],
        "benchmarks": ["cirr"],
        "subsets": 9,
        "out": "true",
    }
    reference = {"root": "r", "spec_key": "k"}  # text or a mapping
    assert fitted(FLOWS["train-reformulation"].request(), {"triplets": reference}) == {
        "triplets": reference
    }


def test_a_parameter_that_is_a_setting_has_its_text_and_limits() -> None:
    from prefect.exceptions import ParameterTypeError

    from models.instructcir.training_settings import ReformulationTraining

    properties = flow_of("train-reformulation").parameters.properties
    own = ReformulationTraining.model_json_schema()["properties"]
    for name in ("epochs", "batch_size", "learning_rate", "new_learning_rate", "seed"):
        shown = properties[name]
        assert {key: shown[key] for key in own[name] if key != "title"} == {
            key: value for key, value in own[name].items() if key != "title"
        }
    with pytest.raises(ParameterTypeError, match="greater than or equal to 2"):
        flow_of("train-reformulation").validate_parameters(changed(TRIPLETS, batch_size=1))
