"""Prompt files: exact texts, hostile values, and refusals that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.prompts.library import load_prompt, prompt_names


@pytest.mark.parametrize(
    ("name", "label"),
    [("edit_short", "Edited Description"), ("objects_short", "Objects most likely added")],
)
def test_short_prompts_are_exactly_what_small_models_learn(name: str, label: str) -> None:
    rendered = load_prompt(name).render(caption="a dog", text="add a cat")
    assert rendered == f"Image Content: a dog\nInstruction: add a cat\n{label}:"


@pytest.mark.parametrize("name", ["edit", "edit_contextual", "edit_fashion", "objects"])
def test_long_prompts_end_with_the_question(name: str) -> None:
    label = "Objects most likely added:" if name == "objects" else "Edited Description:"
    rendered = load_prompt(name).render(caption="a dog", text="add a cat")
    assert rendered.endswith(f"\n\nImage Content: a dog\nInstruction: add a cat\n{label}")
    # Every example is complete, so the model sees one pattern only.
    assert rendered.count("Image Content:") == rendered.count("Instruction:")
    assert rendered.count("Image Content:") == rendered.count(f"\n{label}") >= 4


def test_the_shipped_prompts_are_these() -> None:
    assert prompt_names() == [
        "concept_phrase",
        "edit",
        "edit_contextual",
        "edit_fashion",
        "edit_short",
        "instructcir_difference",
        "llava_caption",
        "objects",
        "objects_short",
        "paraphrase",
        "verify_asked_judge",
        "verify_asked_query",
        "verify_candidate",
        "verify_judge",
        "verify_kept",
        "verify_list_candidate",
        "verify_list_judge",
        "verify_list_question",
        "verify_query",
        "verify_query_short",
        "verify_question",
        "verify_questions",
        "verify_rule",
    ]


def test_values_are_never_read_as_templates() -> None:
    prompt = load_prompt("edit_short")
    rendered = prompt.render(caption="{text} {0} {caption.__class__} %s $text", text="{caption}\\1")
    assert rendered == (
        "Image Content: {text} {0} {caption.__class__} %s $text\n"
        "Instruction: {caption}\\1\nEdited Description:"
    )


def test_values_must_be_those_of_the_placeholders() -> None:
    with pytest.raises(ValueError, match="takes caption, text, not caption"):
        load_prompt("edit_short").render(caption="a dog")
    with pytest.raises(ValueError, match="not caption, style, text"):
        load_prompt("edit_short").render(caption="a dog", text="b", style="c")


def test_a_users_own_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.md"
    path.write_bytes(b'Answer {"as": JSON}.\r\n{text} / {caption}\r\n')
    prompt = load_prompt(path)
    assert prompt.render(caption="C", text="T") == 'Answer {"as": JSON}.\nT / C'

    copy = tmp_path / "copy.md"
    copy.write_bytes(path.read_bytes())
    assert load_prompt(copy).fingerprint == prompt.fingerprint
    copy.write_text("{text} {caption}!", encoding="utf-8")
    assert load_prompt(copy).fingerprint != prompt.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{caption} {text} {style}",
            r"unknown placeholders \{style\}; it may use \{caption\}, \{text\}",
        ),
        ("{caption}", r"lacks the placeholders \{text\}"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_prompt(path)


def test_names_and_files_that_are_not_there() -> None:
    said = r"unknown prompt 'edits'; did you mean 'edit'\? known: .*edit, .*your own \.md"
    with pytest.raises(ValueError, match=said):
        load_prompt("edits")
    with pytest.raises(ValueError, match=r"nowhere/mine\.md cannot be read"):
        load_prompt("nowhere/mine.md")
