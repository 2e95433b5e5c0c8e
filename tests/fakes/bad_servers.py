"""Servers that answer rightly, and the ways in which real ones spoil an answer or give none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tests.fakes.openai_server import Reply, chat, error

Answer = Callable[[Mapping[str, Any]], Reply]

_EDIT = re.compile(r"Image Content: (.*)\nInstruction: (.*)\nEdited Description:$")
_OBJECTS = re.compile(r"Image Content: (.*)\nInstruction: (.*)\nObjects most likely added:$")
_DIFFERENCE = re.compile(r"caption A: (.*) caption B: (.*) answer should be concise")


def right_text(prompt: str) -> str:
    """A right answer to a prompt of any kind; it depends on the whole question."""
    if found := _EDIT.search(prompt):
        return f"{found[1]}, {found[2]}"
    if found := _OBJECTS.search(prompt):
        return f"a {found[2].split()[-1]}" if len(found[2]) % 2 else "none"
    found = _DIFFERENCE.search(prompt)
    assert found is not None, prompt
    return " ".join(f"now {found[2]}".replace(",", "").split()[:12])


def label_of(prompt: str) -> str:
    """The prompt's last label."""
    return re.split(r"[\n.] ?", prompt)[-1].strip()


def healthy(request: Mapping[str, Any]) -> Reply:
    """The right answer as it is."""
    return chat(right_text(prompt_of(request)))


def prompt_of(request: Mapping[str, Any]) -> str:
    """The prompt of a chat request."""
    return str(request["messages"][0]["content"])


def around(write: Callable[[str, str], str], finish: str = "stop") -> Answer:
    """The text that `write` makes of the right answer and the prompt."""

    def answer(request: Mapping[str, Any]) -> Reply:
        prompt = prompt_of(request)
        return chat(write(right_text(prompt), prompt), finish=finish)

    return answer


def stopping(answer: Answer) -> Answer:
    """The same server, which honours stop strings as vLLM does."""

    def cut(request: Mapping[str, Any]) -> Reply:
        reply = answer(request)
        message = reply.body["choices"][0]["message"]
        for stop in request.get("stop", ()):
            message["content"] = message["content"].partition(stop)[0]
        return reply

    return cut


def named(model: str) -> Answer:
    """The right answer of another model."""

    def answer(request: Mapping[str, Any]) -> Reply:
        reply = healthy(request)
        return replace(reply, body={**reply.body, "model": model})

    return answer


THOUGHTS = "Okay, the user wants a new description.\n\nThe picture shows a thing.\n\nSo I keep it."

SPOILT: dict[str, Answer] = {
    "thinks": around(lambda right, _: f"<think>\n{THOUGHTS}\n</think>\n\n{right}"),
    "thinks without an opening tag": around(lambda right, _: f"{THOUGHTS}\n</think>\n\n{right}"),
    "thinks and stops": stopping(
        around(lambda right, _: f"<think>\n{THOUGHTS}</think>\n\n{right}")
    ),
    "thinks untagged and stops": stopping(
        around(lambda right, _: f"{THOUGHTS}</think>\n\n{right}")
    ),
    "thinks in channels": around(
        lambda right, _: (
            f"<|channel|>analysis<|message|>{THOUGHTS}<|end|><|start|>assistant"
            f"<|channel|>final<|message|>{right}<|return|>"
        )
    ),
    "label and stops": stopping(around(lambda right, prompt: f"{label_of(prompt)}\n\n{right}")),
    "preamble and stops": stopping(around(lambda right, _: f"Here is my answer:\n\n{right}")),
    "begins with a blank line and stops": stopping(around(lambda right, _: f"\n\n{right}")),
    "label": around(lambda right, prompt: f"{label_of(prompt)} {right}"),
    "label twice": around(lambda right, prompt: f"{label_of(prompt)} {label_of(prompt)} {right}"),
    "bold label": around(lambda right, prompt: f"**{label_of(prompt)}** {right}"),
    "label on its own line": around(lambda right, prompt: f"{label_of(prompt)}\n\n{right}"),
    "preamble": around(lambda right, _: f"Sure! Here is what you asked for:\n\n{right}"),
    "preamble and label": around(
        lambda right, prompt: f"Certainly!\nHere you go.\n\n{label_of(prompt)} {right}"
    ),
    "quotes": around(lambda right, _: f'"{right}"'),
    "fence": around(lambda right, _: f"```text\n{right}\n```"),
    "chat tokens": around(
        lambda right, _: f"<|im_start|>assistant\n{right}<|im_end|>\n<|im_start|>"
    ),
    "goes on": around(lambda right, _: f"{right}\n\nImage Content: a dog\nInstruction: a cat"),
    "control characters": around(lambda right, _: f"\x1b[1m{right}\x1b[0m\x00\x9f"),
    "refuses fields": lambda request: (
        error(400, "Unrecognized request argument supplied: chat_template_kwargs")
        if "chat_template_kwargs" in request
        else healthy(request)
    ),
    "dated model": named("edit-model-2024-08-06"),
}
"""Kinds of servers from which the right answer comes out."""

REFUSALS = (
    "I'm sorry, but I can't assist with that request.",
    "I cannot edit images. As an AI, I only work with text.",
    "Unfortunately, I am unable to see the picture.",
    "Please provide the image so that I can help.",
    "Es tut mir leid, aber dabei kann ich nicht helfen.",
    "Je suis désolé, mais je ne peux pas vous aider.",
    "Lo siento, no puedo ayudarte con eso.",
    "Извините, я не могу помочь с этим.",
    "很抱歉，我无法处理这个请求。",
    "申し訳ありませんが、お手伝いできません。",
    "죄송하지만 도와드릴 수 없습니다.",
    "عذرًا، لا أستطيع المساعدة في ذلك.",
)

HOPELESS: dict[str, Answer] = {
    "thinks and is cut": around(lambda right, _: f"<think>\n{THOUGHTS}", finish="length"),
    "thinks untagged and is cut": around(lambda right, _: THOUGHTS, finish="length"),
    "reasons aloud for ever": stopping(around(lambda right, _: f"<think>\n{THOUGHTS}")),
    **{f"refusal {n}": around(lambda *_, said=said: said) for n, said in enumerate(REFUSALS)},
    "refuses by name": around(lambda right, _: f"I'm sorry, but I can't add {right} to it."),
    "echo": around(lambda _, prompt: prompt),
    "echo before the answer": around(lambda right, prompt: f"{prompt} {right}"),
    "echo in capitals": around(lambda _, prompt: prompt.upper()),
    "echo of the caption": around(lambda _, prompt: prompt.split(": ")[1].split("\n")[0]),
    "preamble alone": around(lambda *_: "Sure! Here is the edited description:"),
    "courtesy alone": around(lambda *_: "Certainly!"),
    "None in brackets": around(lambda *_: "[None]"),
    "nothing": around(lambda *_: ""),
    "blank": around(lambda *_: " \n\n "),
    "one text for all": around(lambda *_: "a plausible picture of some scene"),
    "quota": lambda _: Reply(429, {"error": {"message": "quota", "code": "insufficient_quota"}}),
    "overload": lambda _: error(500, "out of memory"),
    "flood": lambda _: chat("a " * 100_000),
    "another model": named("cheap-model"),
    "page": lambda _: Reply(body=b"<html>busy</html>", kind="text/html"),
}
"""Kinds of servers from which no answer comes."""
