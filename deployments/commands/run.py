"""Run a flow with a profile. `--set key=value` gives the flow's own parameters and, with dotted
names, replaces single settings of the profile (`--set encoder.name=ViT-B-32`).

A profile is `tiny` (embedded world, no download), `small` (real models for one GPU or a CPU),
`production` (the papers' models) or a TOML file that extends one of them."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import textwrap
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from deployments.display import console, show_stages
from deployments.errors import UserError
from deployments.flow_parameters import checked, fitted, parameter_texts, setting_texts
from deployments.place import add_place, given_settings
from deployments.prefect_session import configure_prefect, run_flow
from deployments.prefect_variables import check_variables
from models.spelling import unknown


class FlowEntry(NamedTuple):
    """The place and the purpose of a flow."""

    module: str
    function: str
    help: str

    def flow(self) -> Any:
        """The flow; its import brings Prefect."""
        return getattr(importlib.import_module(self.module), self.function)

    def request(self) -> Any:
        """The function that has the flow's parameters and checks them, without Prefect."""
        module = self.module.replace("flows.", "flows.requests.")
        return getattr(importlib.import_module(module), self.function)


FLOWS = {
    "ingest": FlowEntry("flows.ingest_collection", "ingest_collection", "images -> collection"),
    "backfill-captions": FlowEntry(
        "flows.backfill_captions", "backfill_captions", "fill a collection's caption cache"
    ),
    "embed-gallery": FlowEntry(
        "flows.embed_gallery", "embed_gallery", "everything that searching a collection needs"
    ),
    "generate-triplets": FlowEntry(
        "flows.generate_triplets", "generate_triplets", "images -> training data for InstructCIR"
    ),
    "train-mapping": FlowEntry(
        "flows.train_mapping",
        "train_mapping",
        "a mapping network: LinCIR from captions, others from images",
    ),
    "finetune-rewriter": FlowEntry(
        "flows.finetune_rewriter", "finetune_rewriter", "LoRA for the model that writes the texts"
    ),
    "train-reformulation": FlowEntry(
        "flows.train_reformulation", "train_reformulation", "triplets -> InstructCIR's network"
    ),
    "train-composed": FlowEntry(
        "flows.train_composed", "train_composed", "triplets -> TransAgg, CoVR and other systems"
    ),
    "train-compodiff": FlowEntry(
        "flows.train_compodiff", "train_compodiff", "triplets -> CompoDiff's denoiser"
    ),
    "train-weights": FlowEntry(
        "flows.train_weights", "train_weights", "triplets -> fusion weights for each query"
    ),
    "train-systems": FlowEntry(
        "flows.train_systems", "train_systems", "every comparison system on the same triplets"
    ),
    "score-benchmark": FlowEntry(
        "flows.score_benchmark", "score_benchmark", "rankings, metrics, submissions, report"
    ),
    "rerun-backbone": FlowEntry(
        "flows.rerun_backbones", "rerun_backbone", "evaluate again with another CLIP, texts reused"
    ),
    "evaluate-matrix": FlowEntry(
        "flows.rerun_backbones", "evaluate_matrix", "methods x benchmarks x backbones"
    ),
    "sweep-fusion": FlowEntry(
        "flows.sweep_fusion", "sweep_fusion", "fusion weights on a grid, from cached features"
    ),
    "scaling": FlowEntry(
        "flows.scaling", "scaling", "InstructCIR's quality against the number of triplets"
    ),
    "evaluate-world": FlowEntry(
        "flows.evaluate_world", "evaluate_world", "methods on several embedded worlds"
    ),
    "paper": FlowEntry(
        "flows.paper", "paper", "a paper's tables and figures, measured next to published"
    ),
    "demo": FlowEntry("flows.demo", "demo", "the whole story on the embedded world"),
}

UNSAID: Final = ("stages", "costs", "main_metrics", "differs")
"""Parts of a result that `--json` prints alone, or that stand in tables."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    names = "\n".join(f"  {line}" for line in flow_lines())
    parser.epilog = (
        f"flows:\n{names}\n\nparameters of one flow and their choices: cirflow run FLOW --list"
    )
    parser.add_argument(
        "flow", type=_flow_name, nargs="?", metavar="FLOW", help="name of a flow, see below"
    )
    add_place(parser, "a parameter of the flow or a setting of the profile")
    parser.add_argument(
        "--list", action="store_true", help="list a flow's parameters, or the flows"
    )
    parser.add_argument("--json", action="store_true", help="print the flow's result as JSON")


def flow_lines() -> list[str]:
    """Each flow's name and purpose."""
    return [f"{name:20} {entry.help}" for name, entry in FLOWS.items()]


def _flow_name(name: str) -> str:
    if name not in FLOWS:
        raise argparse.ArgumentTypeError(unknown("flow", name, FLOWS))
    return name


def run(arguments: argparse.Namespace) -> int:
    """Check everything that can be checked, then start Prefect and the flow."""
    if arguments.flow is None:
        if not arguments.list:
            raise UserError(f"name a flow: cirflow run FLOW. Known: {', '.join(FLOWS)}")
        print("\n".join(flow_lines()))
        return 0
    entry = FLOWS[arguments.flow]
    if arguments.list:
        return _list_parameters(entry, arguments.profile)
    parameters = checked_parameters(arguments)
    configure_prefect()
    ran = run_flow(entry.flow(), parameters)
    if arguments.json:
        print(json.dumps(ran.result, default=str))
    else:
        _sum_up(ran.result)
    console.print(ran.in_words)
    return 0


def checked_parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """The flow's parameters, checked as its run will check them, without Prefect and models.

    Raises:
        UserError: an unknown name, a value that does not fit, or a parameter that is missing.
        ValueError: something that the parameters name is missing or cannot be used.
    """
    from flows.profiles import nested, resolve_profile
    from tasks.settings import Profile

    request = FLOWS[arguments.flow].request()
    parameters = dict(inspect.signature(request).parameters)
    del parameters["profile"], parameters["settings"]  # these have options of their own
    own: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for key, value in given_settings(arguments).items():
        group = key.partition(".")[0]
        if key in parameters or group in parameters.keys() - Profile.model_fields.keys():
            own[key] = value
        elif group in Profile.model_fields:
            settings[key] = value
        else:
            raise UserError(_unknown(arguments, key, parameters))
    own = fitted(request, nested(own))
    resolve_profile(arguments.profile, settings)
    _require(arguments.flow, parameters, own)
    given = {**own, "profile": arguments.profile, "settings": settings}
    checked(request, given)
    return given


def _unknown(arguments: argparse.Namespace, key: str, parameters: Iterable[str]) -> str:
    from flows.profiles import resolve_profile, setting_names

    settings = setting_names(resolve_profile(arguments.profile))
    said = unknown("parameter or setting", key, parameters, also=settings)
    return f"{said}, and the profile's settings (cirflow run {arguments.flow} --list)"


def _sum_up(result: dict[str, Any]) -> None:
    if result.get("stages"):
        show_stages(result["stages"])
    for key, value in result.items():
        if key == "scores":
            from deployments.commands.demo import show_scores

            show_scores(value, result["main_metrics"], result.get("differs", {}))
        elif key not in UNSAID and value not in (None, "", [], {}):
            print(f"{key}: {value if isinstance(value, str | int | float) else _json(value)}")


def _json(value: object) -> str:
    """JSON that is read by people: letters of any language as they are."""
    return json.dumps(value, ensure_ascii=False)


def _require(name: str, parameters: Any, given: dict[str, Any]) -> None:
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and key not in given
    ]
    if missing:
        hints = " ".join(f"--set {key}=..." for key in missing)
        raise UserError(f"{name} needs {hints} (cirflow run {name} --list explains them)")


def _list_parameters(entry: FlowEntry, profile: str) -> int:
    check_variables()
    flow = entry.flow()
    about, _, _ = (inspect.getdoc(flow.fn) or "").partition("\nArgs:")
    print(f"{about.strip()}\n\nparameters (--set NAME=VALUE):")
    for name, text in parameter_texts(flow):
        _print_entry(f"{name}: {text}")
    from flows.profiles import plain_values, resolve_profile

    chosen = resolve_profile(profile)
    print(f"\nsettings of the profile {chosen.name} (--set NAME=VALUE, or a TOML file):")
    schema = type(chosen).model_json_schema()
    for name, value, text in setting_texts(plain_values(chosen), schema):
        _print_entry(f"{name} = {json.dumps(value)}")
        if text:
            _print_entry(text, "      ")
    return 0


def _print_entry(text: str, indent: str = "  ") -> None:
    print(
        textwrap.fill(
            text,
            width=100,
            initial_indent=indent,
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    )
