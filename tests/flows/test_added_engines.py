"""A captioner and an LLM engine are one file each: CONTRIBUTING's recipes, done on a copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.added_tree import AddedTree, copy_tree

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

PICTURES = {"sea": ("blue", "white"), "meadow": ("green", "yellow"), "night": ("black", "gray")}
"""Name of a picture -> colour of most of it, and of the rest."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> AddedTree:
    tree = copy_tree(tmp_path_factory.mktemp("tree"), migrated_database)
    for room, name, settings, union in (
        ("captioners", "palette", "PaletteSettings", "CaptionerSettings"),
        ("generators", "echo", "EchoSettings", "GeneratorSettings"),
    ):
        tree.add_file(f"{name}.py", f"models/{room}/{name}.py")
        members = f"models/{room}/settings.py"
        tree.add_line(
            members, "from pydantic import Field", f"from models.{room}.{name} import {settings}"
        )
        tree.add_line(members, f"{union}: TypeAlias = Annotated[", f"    {settings} |")
    return tree


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for name, (most, rest) in PICTURES.items():
        image = Image.new("RGB", (60, 40), most)
        image.paste(rest, (0, 0, 20, 40))
        image.save(folder / f"{name}.png")
    return folder


def test_the_captioner_fills_the_captions_of_a_collection(
    tree: AddedTree, photographs: Path
) -> None:
    root = tree.folder / "tables"
    tree.cirflow("ingest", str(photographs), "--name", "three", "--root", str(root))
    chosen = ("collection=three", f"root={root}", "captioner.engine=palette",
              "captioner.colours=2", "cvsi.captions_per_image=4")  # fmt: skip
    run = ["run", "backfill-captions", *(f"--set={each}" for each in chosen)]
    assert "three by palette (4 captions an image): 3 captioned" in tree.cirflow(*run)
    assert "0 captioned, 3 reused" in tree.cirflow(*run)

    (spec,) = (root / "captions").glob("*/spec.json")
    assert json.loads(spec.read_text())["captioner"] == {
        "engine": "palette",
        "version": 1,
        "colours": 2,
    }
    code = (
        "import json, sys, polars; "
        "rows = polars.read_parquet(sys.argv[1] + '/*.parquet'); "
        "print(json.dumps(rows['captions'].to_list()))"
    )
    captions = json.loads(tree.python("-c", code, str(spec.parent)))
    assert [len(own) for own in captions] == [4, 4, 4]
    for most, rest in PICTURES.values():
        wanted = {f"a picture in {most}, {rest}", f"a picture in {rest}, {most}"}
        assert any(set(own) <= wanted for own in captions), (wanted, captions)


def test_forms_offer_it_and_its_settings_are_checked(tree: AddedTree) -> None:
    listed = tree.cirflow("run", "backfill-captions", "--list")
    assert "palette" in listed
    code = (
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "from flows.profiles import resolve_profile\n"
        "resolve_profile('tiny', {'captioner.engine': 'palette', 'captioner.device': 'cpu'})\n"
    )
    said = tree.python("-c", code)
    assert "captioner.device is ignored: it is a setting of blip2 and llava" in said


def test_the_generator_writes_under_a_profile(tree: AddedTree) -> None:
    code = (
        "import json\n"
        "from flows.profiles import resolve_profile\n"
        "from models.protocols import TextRequest\n"
        "from tasks.engines import generator_fingerprint, load_generator\n"
        "chosen = {'generator.engine': 'echo', 'generator.words': 2}\n"
        "own = resolve_profile('tiny', chosen).generator\n"
        "asked = [TextRequest(str(i), f'say {i} more words') for i in range(2)]\n"
        "replies = [r.text for r in load_generator(own).generate(asked)]\n"
        "print(json.dumps([own.model_dump(), dict(generator_fingerprint(own)), replies]))"
    )
    settings, fingerprint, replies = json.loads(tree.python("-c", code))
    assert settings == {"engine": "echo", "max_new_tokens": 48, "seed": 0, "words": 2}
    assert fingerprint == {"engine": "echo", "version": 1, "words": 2}
    assert replies == ["more words", "more words"]
