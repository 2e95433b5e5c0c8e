"""A stand-in for the server that writes modification texts, and small profiles that use it.

Its texts are true: they name words of caption B that caption A lacks. It answers equal requests
equally, so that tables of two runs can be compared.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.profiles import EMBEDDED, resolve_profile
from models.instructcir.triplet_quality import words_of
from tasks.settings import Profile
from tests.fakes.openai_server import MODEL, Reply, chat

_CAPTIONS = re.compile(r"caption A: (.*) caption B: (.*) answer should be concise")


def captions_in(prompt: str) -> tuple[str, str]:
    """Captions A and B of a prompt of InstructCIR's."""
    found = _CAPTIONS.search(prompt)
    assert found is not None, prompt
    return found[1], found[2]


def difference(request: Mapping[str, Any]) -> Reply:
    """At most ten words that caption B has and caption A lacks."""
    before, after = captions_in(request["messages"][0]["content"])
    new = [word for word in dict.fromkeys(words_of(after)) if word not in words_of(before)]
    return chat(f"now with {' '.join(new[:10])}" if new else "nothing changes")


def fickle_difference(request: Mapping[str, Any]) -> Reply:
    """The same, but half of the requests get an answer that breaks the contract."""
    asked = f"{request['messages'][0]['content']} {request.get('seed')}"
    if hashlib.sha256(asked.encode()).digest()[0] % 2:
        return chat("* the answer: this")
    return difference(request)


def triplet_settings(root: Path | str, base_url: str, shard: int = 16) -> dict[str, object]:
    """Settings under which the shipped BLIP-2 captions and a server at `base_url` writes."""
    return {
        "root": str(root),
        "shards.captions": shard,
        "shards.triplets": shard,
        "instructcir.captioner.engine": "blip2",
        "instructcir.captioner.model": str(EMBEDDED / "blip2"),
        "instructcir.captions.max_new_tokens": 24,
        "instructcir.rewriter.engine": "openai",
        "instructcir.rewriter.model": MODEL,
        "instructcir.rewriter.base_url": base_url,
        "instructcir.rewriter.timeout": 60.0,
    }


def triplet_profile(root: Path | str, base_url: str, shard: int = 16) -> Profile:
    """The tiny profile with those settings."""
    return resolve_profile("tiny", triplet_settings(root, base_url, shard))
