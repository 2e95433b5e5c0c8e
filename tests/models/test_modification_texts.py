"""Modification texts: the prompt's words, the contract by hand, and servers that misbehave."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest

from embedded_world.recipes.text_prompts import difference_prompt
from models.generators.openai_server import OpenAIServerGenerator, OpenAIServerSettings
from models.instructcir.modification_texts import (
    PLACEHOLDERS,
    CaptionPair,
    WritingSettings,
    WrittenText,
    read_answer,
    to_request,
    write_texts,
)
from models.prompts.library import load_prompt
from models.protocols import EngineUnavailable, TextReply, TextRequest
from tests.fakes.bad_servers import HOPELESS, SPOILT
from tests.fakes.difference_server import captions_in, difference
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, Reply, chat, echo, error

PROMPT = load_prompt("instructcir_difference", PLACEHOLDERS)
PAIR = CaptionPair("k", "a red car on a road", "a blue car on a road")


def test_the_prompt_has_the_papers_words() -> None:
    asked = PROMPT.render(caption_a="a dog", caption_b="a cat")
    assert asked == (
        "You have two captions for two images, image A and image B, you are supposed to write a "
        "reformulation text describing changing from image A to image B. caption A: a dog caption "
        "B: a cat answer should be concise and within 12 words, only contain normal words, do not "
        "use special characters. Difference:"
    )
    assert asked == difference_prompt("a dog", "a cat")  # what the small generator learns


ACCEPTED = {
    "The car is blue instead of red.": "The car is blue instead of red.",
    "  the   car\tis blue  \n": "the car is blue",
    "\n\n  a blue car\nImage A had a red one": "a blue car",
    "Difference: a blue car": "a blue car",
    "DIFFERENCE:\n a blue car": "a blue car",
    '"a blue car"': "a blue car",
    "Difference: 'a blue car'": "a blue car",
    '"Difference: a blue car"': "a blue car",
    "\u201ca blue car\u201d": "a blue car",
    "the dog\u2019s ball": "the dog's ball",
    "a t-shirt, size 42, isn't it.": "a t-shirt, size 42, isn't it.",
    "caf\u00e9 instead of bar": "caf\u00e9 instead of bar",
    "one two three four five six seven eight nine ten eleven twelve": (
        "one two three four five six seven eight nine ten eleven twelve"
    ),
    "blue": "blue",
}
REFUSED = {
    "one two three four five six seven eight nine ten eleven twelve thirteen": "too long: 13",
    "Difference:": "no words",
    '""': "no words",
    "...": "no words",
    "12": "no words",
    "$ is blue": "special characters: $",
    "a * blue car": "special characters: *",
    "- blue car!": "special characters: !",
    "caption A: a red car": "echo: ",
    "": "empty",
    "blue (not red)": "special characters: ( )",
    'the sign says "stop" here': 'special characters: "',
    "blue \u2192 red": "special characters: \u2192",
    "\u84dd\u8272 car": "special characters: \u8272 \u84dd",
    "a<br>b": "special characters: < >",
}


@pytest.mark.parametrize(("raw", "text"), ACCEPTED.items())
def test_answers_that_keep_the_contract(raw: str, text: str) -> None:
    assert read_answer(TextReply("k", raw, finish_reason="stop")) == (text, "")


@pytest.mark.parametrize(("raw", "reason"), REFUSED.items())
def test_answers_that_break_it(raw: str, reason: str) -> None:
    text, why = read_answer(TextReply("k", raw, finish_reason="stop"))
    assert text == ""
    assert why.startswith(reason)


def test_an_answer_that_the_token_limit_cut_off_is_no_answer() -> None:
    assert read_answer(TextReply("k", "a blue car with a", finish_reason="length"))[1] == (
        "cut off: the answer ran into the token limit"
    )
    whole = TextReply("k", "a blue car\nand then on and", finish_reason="length")
    assert read_answer(whole) == ("a blue car", "")


class Scripted:
    """A generator that answers each pair's attempts from a list and notes what it was asked."""

    def __init__(self, **answers: list[str | TextReply]) -> None:
        self._answers = answers
        self.rounds: list[dict[str, TextRequest]] = []

    def generate(self, requests: Iterable[TextRequest]) -> Iterator[TextReply]:
        asked = {request.key: request for request in requests}
        self.rounds.append(asked)
        for key in reversed(asked):
            answer = self._answers[key][len([r for r in self.rounds if key in r]) - 1]
            yield answer if isinstance(answer, TextReply) else TextReply(key, answer)


def write(
    generator: Any, *keys: str, ticks: list[int] | None = None, **settings: Any
) -> dict[str, WrittenText]:
    pairs = [CaptionPair(key, f"{key} before", f"{key} after") for key in keys]
    done = (ticks if ticks is not None else []).append
    return write_texts(generator, PROMPT, pairs, WritingSettings(**settings), done)


def test_only_what_failed_is_asked_again_with_another_seed_and_warmer() -> None:
    ticks: list[int] = []
    generator = Scripted(
        good=["fine"],
        second=["a: b", "fine too"],
        never=["$", "a b * c", "x: y"],
        third=["", "", "now red"],
    )
    made = write(generator, "good", "second", "never", "third", ticks=ticks)
    assert [set(asked) for asked in generator.rounds] == [
        {"good", "second", "never", "third"},
        {"second", "never", "third"},
        {"never", "third"},
    ]
    assert ticks == [1] * 4
    assert made["good"] == WrittenText("good", "fine", "ok", "", "fine", 1)
    assert made["second"] == WrittenText("second", "fine too", "ok", "", "fine too", 2)
    assert made["third"] == WrittenText("third", "now red", "ok", "", "now red", 3)
    assert made["never"] == WrittenText("never", "", "rejected", "special characters: :", "x: y", 3)
    asked = [asked["never"] for asked in generator.rounds]
    assert [request.temperature for request in asked] == [0.0, 0.7, 0.7]
    assert len({request.seed for request in asked}) == 3
    assert all(0 <= request.seed < 2**31 for request in asked)
    assert {request.prompt for request in asked} == {
        PROMPT.render(caption_a="never before", caption_b="never after")
    }


def test_what_the_engine_could_not_do_is_final_and_keeps_its_status() -> None:
    late = TextReply("late", "", "timeout", "the server did not answer in time")
    empty = TextReply("empty", "", "rejected", "the model answered nothing")
    made = write(Scripted(late=[late], empty=[empty, "words"]), "late", "empty")
    assert made["late"] == WrittenText(
        "late", "", "timeout", "the server did not answer in time", "", 1
    )
    assert made["empty"] == WrittenText("empty", "words", "ok", "", "words", 2)


def test_settings_that_would_ask_the_same_again_are_refused() -> None:
    with pytest.raises(ValueError, match="retry_temperature must be positive"):
        WritingSettings(retry_temperature=0.0)
    WritingSettings(retry_temperature=0.0, attempts=1)
    with pytest.raises(ValueError, match="attempts must be at least 1"):
        WritingSettings(attempts=0)


def test_a_first_attempt_may_be_warmer_than_the_others() -> None:
    warm = WritingSettings(temperature=1.0)
    assert [to_request(PAIR, PROMPT, warm, n).temperature for n in (1, 2)] == [1.0, 1.0]


def test_line_ends_in_captions_do_not_end_the_prompt() -> None:
    pair = CaptionPair("k", "a dog\n\nDifference: x", "{caption_a}\ta cat")
    prompt = to_request(pair, PROMPT, WritingSettings(), 1).prompt
    assert "\n" not in prompt
    assert captions_in(prompt) == ("a dog Difference: x", "{caption_a} a cat")


# ------------------------------------------------------------------------------ a real client


def client(server: FakeOpenAIServer, **settings: Any) -> OpenAIServerGenerator:
    values = {
        "timeout": 60.0,
        "transport_retries": 0,
        "attempts": 1,
        "health_wait_seconds": 60.0,
        "health_poll_seconds": 0.05,
        "concurrency": 4,
    }
    return OpenAIServerGenerator(
        OpenAIServerSettings(base_url=server.base_url, model=MODEL, **(values | settings))
    )


def test_a_misbehaving_server_leaves_typed_outcomes_and_the_others_go_on() -> None:
    faults = {
        "html": Reply(body=b"<html>busy</html>", kind="text/html"),
        "numbers": chat(7),
        "nothing": chat(""),
        "two": chat("one", "two"),
        "unended": chat("fine", finish="content_filter"),
        "chatty": chat("the car that was red before is blue now and that is all there is to it"),
        "late": Reply(fault="hang"),
        "half": Reply(body={"choices": []}, fault="half"),
        "overlong": error(400, "maximum context length is 64 tokens"),
        "broken": error(500, "out of memory"),
    }

    def misbehave(request: Mapping[str, Any]) -> Reply:
        before, _ = captions_in(request["messages"][0]["content"])
        return faults.get(before.split()[0]) or difference(request)

    good = [f"good{n}" for n in range(12)]
    with FakeOpenAIServer(then=misbehave) as server:
        made = write(client(server, timeout=3.0), *faults, *good)
        asked = [captions_in(r["messages"][0]["content"])[0].split()[0] for r in server.requests]
    assert {made[key].text for key in good} == {"now with after"}
    assert {key: made[key].status for key in faults} == {
        "html": "rejected",
        "numbers": "rejected",
        "nothing": "rejected",
        "two": "rejected",
        "unended": "rejected",
        "chatty": "rejected",
        "late": "timeout",
        "half": "engine_error",
        "overlong": "overlong",
        "broken": "engine_error",
    }
    assert all(made[key].reason and not made[key].text for key in faults)
    assert made["chatty"].raw.startswith("the car")
    for key in faults:  # three attempts at what may come out better, one at what will not
        again = made[key].status == "rejected"
        assert asked.count(key) == made[key].attempts == (3 if again else 1), key


def test_a_server_that_goes_away_between_rounds_costs_only_what_it_still_owed() -> None:
    with FakeOpenAIServer(then=lambda r: chat("$") if "bad" in str(r) else chat("fine")) as server:
        generator = client(server)
        answer = generator.generate

        def once(requests: Iterable[TextRequest]) -> Iterator[TextReply]:
            yield from answer(requests)
            server.models = ["another-model"]  # the list is looked at when a round begins

        generator.generate = once  # type: ignore[method-assign]
        made = write(generator, "good", "bad")
    assert (made["good"].status, made["good"].text) == ("ok", "fine")
    assert made["bad"].status == "engine_error"
    assert "does not serve" in made["bad"].reason
    assert (made["bad"].raw, made["bad"].attempts) == ("$", 1)


def test_a_server_that_was_never_there_is_an_error() -> None:
    from models.generators.openai_session import ServerUnusable

    with FakeOpenAIServer(then=echo) as server:
        generator = client(server)
    with pytest.raises(ServerUnusable, match="does not answer"):
        write(generator, "pair")


NEEDS_THE_GUARD = {"one text for all", "echo of the caption"}
"""Kinds that only the guard of a stage can tell."""


@pytest.mark.parametrize("kind", [*SPOILT, *sorted(HOPELESS.keys() - NEEDS_THE_GUARD)])
def test_with_each_kind_of_bad_server_a_text_is_right_or_there_is_none(kind: str) -> None:
    answer = SPOILT.get(kind) or HOPELESS[kind]
    with FakeOpenAIServer(then=answer) as server:
        try:
            made = write(client(server, attempts=2), "red", "blue", attempts=1)
        except EngineUnavailable:
            made = {}
    texts = {key: written.text for key, written in made.items()}
    right = {"red": "now red after", "blue": "now blue after"}
    if kind in SPOILT:
        assert texts == right
    else:
        assert all(text in ("", right[key]) for key, text in texts.items())
        assert all(written.reason or written.text for written in made.values())
