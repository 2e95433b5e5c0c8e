"""A search that this machine cannot answer is refused before anything heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "open_clip", "prefect", "openai", "diffusers", "faiss")
PROGRAM = f"""
import json, sys
from flows.profiles import resolve_profile
from models.retrieval.contributions import Weights
from tasks.search_request import require_search
answers = []
for settings, method, weights in json.loads(sys.stdin.read()):
    moved = Weights(*weights) if weights else None
    said = ""
    try:
        require_search(resolve_profile("tiny", settings), "photos", method, "cirr", moved)
    except Exception as error:
        said = f"{{type(error).__name__}}: {{error}}"
    answers.append([said, [name for name in {HEAVY!r} if name in sys.modules]])
print(json.dumps(answers))
"""
SERVER = {"engine": "openai", "model": "q", "base_url": "http://127.0.0.1:9/v1"}
CASES = [
    ({}, "cvsi", None, ""),
    ({}, "cvsi", [{"x": 1.0}, {}], "unknown feature of this method 'x'; known: edited_captions"),
    ({}, "cvsi", [{"edited_captions": 99.0}, {}], "a number from -10 to 10, not 99"),
    ({"generator.model": "Qwen/none"}, "cvsi", None, "hf download Qwen/none"),
    ({"generator.model": "photos"}, "cvsi", None, "'photos' holds no weights"),
    ({"generator.adapter": "photos"}, "cvsi", None, "'photos' lacks adapter_config.json"),
    (
        {f"generator.{name}": value for name, value in SERVER.items()},
        "cvsi",
        None,
        "edited captions of the query: the LLM server at http://127.0.0.1:9/v1 does not answer",
    ),
    (
        {f"generator.{name}": value for name, value in SERVER.items()}
        | {"generator.base_url": "q:9"},
        "cvsi",
        None,
        "base_url must start with http:// or https://, not 'q:9'",
    ),
    ({"captioner.device": "xpu"}, "cvsi", None, "captions of the query: device 'xpu'"),
    ({"encoder.device": "xpu"}, "image-only", None, "image features of the query: device 'xpu'"),
    ({"mapping.checkpoint": "photos"}, "lincir", None, "photos holds no mapping network"),
    ({"mapping.checkpoint": "t.json"}, "lincir", None, "t.json holds no mapping network"),
    ({"verify.verifier.model": "Qwen/none"}, "cvsi+verify", None, "hf download Qwen/none"),
    ({"verify.verifier.device": "xpu"}, "cvsi+verify", None, "device 'xpu'"),
    (
        {"verify.verifier.engine": "blip-itm", "verify.verifier.model": "photos"},
        "cvsi+verify",
        None,
        "which a search does not make for it",
    ),
    ({"editor.model": "timbrooks/none"}, "instructpix2pix", None, "hf download timbrooks/none"),
]


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> list[tuple[str, list[str]]]:
    """What is said of each case, and heavy imports so far, in one process."""
    from tests.deployments.mistakes import surroundings

    folder = tmp_path_factory.mktemp("searches") / "work"
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "config.json").write_text("{}")
    (folder / "t.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([case[:3] for case in CASES]),
        cwd=folder,
        env=surroundings(folder),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [(said, heavy) for said, heavy in json.loads(done.stdout)]


@pytest.mark.parametrize("place", range(len(CASES)), ids=lambda i: CASES[i][3][:40] or "nothing")
def test_it_says_what_is_missing(answers: list[tuple[str, list[str]]], place: int) -> None:
    said, heavy = answers[place]
    wanted = CASES[place][3]
    assert wanted in said
    assert bool(said) == bool(wanted)
    assert heavy == []
