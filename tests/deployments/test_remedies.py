"""Remedies name settings and parameters that exist, in messages and in the docs."""

from __future__ import annotations

import argparse
import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from deployments.cli import COMMANDS
from deployments.commands.run import FLOWS
from flows.form_fields import _groups
from flows.profiles import production, setting_names, tiny
from models.captioners.settings import CaptionerSettings
from models.composed.registry import SYSTEMS
from models.editors.settings import EditorSettings
from models.embedders.settings import EmbedderSettings
from models.engine_settings import engine_kinds
from models.generators.settings import GeneratorSettings
from models.retrieval.systems.query_weights import WEIGHED
from models.verifiers.settings import VerifierSettings
from storage.benchmarks.registry import BENCHMARKS, FAMILIES, protocol_options

ROOMS: Final = ("deployments", "flows", "models", "storage", "tasks")
NAME: Final = r"([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)"
ASSIGNED: Final = re.compile(rf"(?<![\w.\-/{{])(?:--set[ =])?{NAME}=(?=[\w{{/.'\"\[])")
NAMED_COMMAND: Final = re.compile(r"`cirflow ([a-z]+)(?: ([a-z][a-z-]+)(?![\w=.{/]))?")
TO_SET: Final = re.compile(rf"(?:--set|\bset|\bor set|correct) {NAME}(?=[ ;,)]|$)")

ELSEWHERE: Final = {
    "filename": "of an HTTP header",
    "outcome": "in the address of the explorer's pages",
    "key": "stands for any name",
    "num_query_tokens": "of a checkpoint's processor_config.json",
    "patch_size": "of a checkpoint's processor_config.json",
    "k": "of a call, in a message for callers",
    "dim": "of a table's spec",
    **dict.fromkeys(("charset", "lang", "xmlns", "href"), "HTML and SVG"),
}
WORDS: Final = frozenset(
    [
        "the",
        "its",
        "it",
        "one",
        "another",
        "this",
        "them",
        "their",
        "to",
        "a",
        "an",
        "at",
        "up",
        "in",
        "takes",
        "fewer",
        "sizes",
        "value",
        "of",
        "and",
        "both",
        "other",
        "class",
        "environment",
        "all",
    ]
)
"""English after `set`."""


def texts(node: ast.AST) -> Iterator[str]:
    """Every text below a node; a value that is put in stands as {}."""
    if isinstance(node, ast.JoinedStr):
        parts = node.values
        yield "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in parts)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def messages(repository: Path) -> Iterator[tuple[str, str]]:
    """Place and text of everything that is raised, or said as a remedy."""
    for room in ROOMS:
        for path in sorted((repository / room).rglob("*.py")):
            if "embedded" in path.parts:
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                named = isinstance(node, ast.Assign | ast.Return) or (
                    isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"
                )
                if isinstance(node, ast.Raise) or named:
                    for text in texts(node):
                        yield f"{path.relative_to(repository)}:{node.lineno}", text


def every_setting() -> set[str]:
    """Dotted names of the profile's settings, with those of every engine and family."""
    names = {name for profile in (tiny(), production()) for name in setting_names(profile)}
    for union, groups in (
        (CaptionerSettings, ("captioner", "instructcir.captioner")),
        (GeneratorSettings, ("generator", "instructcir.rewriter")),
        (EditorSettings, ("editor",)),
        (VerifierSettings, ("verify.verifier",)),
        (EmbedderSettings, ("embedder",)),
    ):
        for kind in engine_kinds(union).values():
            names |= {f"{group}.{field}" for group in groups for field in kind.model_fields}
    for family in ("{}", *FAMILIES):
        names |= {f"prompts.edit.{family}", f"instructcir.weights.{family}"}
        names.add(f"embedding_weights.{family}")
    weighed = (f"query_weights.{name}" for name in ("{}", *WEIGHED))
    return names | {"mapping.{}", *weighed, *(f"composed.{name}" for name in SYSTEMS)}


def every_parameter() -> set[str]:
    """Names of the flows' parameters, and `parameter.field` of their groups."""
    names = set()
    for entry in FLOWS.values():
        for name, parameter in inspect.signature(entry.request(), eval_str=True).parameters.items():
            names.add(name)
            for kind in _groups(parameter.annotation):
                names |= {f"{name}.{field}" for field in kind.model_fields}
            for mark in getattr(parameter.annotation, "__metadata__", ()):
                if kind := getattr(mark, "kind", None):
                    names |= {f"{name}.{field}" for field in kind.model_fields}
    return names


@pytest.fixture(scope="module")
def known() -> set[str]:
    options = {option for name in BENCHMARKS for option in protocol_options(name)}
    return every_setting() | every_parameter() | options


def unknown_names(text: str, known: set[str]) -> list[str]:
    """Names that a text tells to set and that nothing has."""
    named = {*ASSIGNED.findall(text), *TO_SET.findall(text)} - WORDS - ELSEWHERE.keys()
    fields = {name.rpartition(".")[2] for name in known}  # an engine does not know its place
    return [name for name in sorted(named) if name not in known and name not in fields]


def test_remedies_in_messages(repository: Path, known: set[str]) -> None:
    found = list(messages(repository))
    assert len(found) > 1000
    wrong = {place: bad for place, text in found if (bad := unknown_names(text, known))}
    assert wrong == {}


def unknown_commands(text: str) -> list[str]:
    """Commands that a text tells to run and that cirflow does not have."""
    wrong = []
    for command, word in NAMED_COMMAND.findall(text):
        if command not in COMMANDS:
            wrong.append(command)
        elif word and (known := first_words(command)) and word not in known:
            wrong.append(f"{command} {word}")
    return wrong


@functools.cache
def first_words(command: str) -> frozenset[str]:
    """The first words that a command takes, where it takes one of a few."""
    if command == "run":
        return frozenset(FLOWS)
    parser = argparse.ArgumentParser()
    importlib.import_module(f"deployments.commands.{COMMANDS[command].module}").add_arguments(
        parser
    )
    places = [action for action in parser._actions if not action.option_strings]
    return frozenset(places[0].choices or ()) if places else frozenset()


def test_commands_in_messages(repository: Path) -> None:
    assert unknown_commands("`cirflow cache list` or `cirflow cache ls`") == ["cache list"]
    assert unknown_commands("`cirflow run embed-galery`") == ["run embed-galery"]
    found = list(messages(repository))
    wrong = {place: bad for place, text in found if (bad := unknown_commands(text))}
    assert wrong == {}


def test_commands_in_the_docs(repository: Path, known: set[str]) -> None:
    pages = [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]
    named = re.compile(rf"--set[ =]['\"]?{NAME}=")
    wrong: dict[str, Any] = {}
    for page in pages:
        names = named.findall(page.read_text("utf-8"))
        if bad := [name for name in names if name not in known]:
            wrong[page.name] = bad
    assert wrong == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("or allow gaps (allow_missing=True)", ["allow_missing"]),
        ("or allow gaps (allow_missing_images=true)", []),
        ("set mapping.lincir=FILE", ["mapping.lincir"]),
        ("set mapping.searle=FILE", []),
        ("choose kind=single, or set encodr.name", ["encodr.name"]),
        ("--set shards.captions=4 --set shard=5", ["shard"]),
    ],
)
def test_the_scan_sees_them(known: set[str], text: str, names: list[str]) -> None:
    assert unknown_names(text, known) == names
