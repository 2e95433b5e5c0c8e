"""What a model says is shown as it stands, by the browser that people read it with."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

from deployments.stack.settings import StackSettings
from tasks.report.markdown import Markdown, markdown_table, plain

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

PAYLOADS = (
    "[click](javascript:alert(1)) and ![x](http://evil.test/x.png), [a]: http://evil.test",
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>b</b>",
    "a `code` | b || **bold** *it* __bold__ _it_ ~~gone~~ a_b_c $x^2$ \\* \\",
    "http://evil.test/a?b=c&d=e www.evil.test me@evil.test mailto:a@evil.test <http://evil.test>",
    "&lt;b&gt; &amp; &#60;i&#62; &copy;",
    *("# heading", "- item", "+ item", "1. one", "12) two", "> quote", "=====", "---", "***"),
    "line one\n\n# line two\n```\nfence\n```\n    code\n|---|",
    "\x1b[31mred\x00 \u202egnp.exe",
    'the same in red, 52.40 % (v1.5): it\'s "new" - and a-b + c = d; e.g. this.',
)
KNOWN = {*("div", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong")}
"""Elements that the page itself asks for."""


def seen(payload: str) -> str:
    """What a person reads: one line without what cannot be seen."""
    text = re.sub("[\x00-\x1f\u202e]", " ", payload)
    return " ".join(text.split())


def test_no_text_of_a_model_becomes_more_than_text(server: StackSettings, window: Page) -> None:
    rows = [(payload, Markdown(f"**{plain(payload)}**")) for payload in PAYLOADS]
    page = "\n\n".join(
        [
            *(f"## {plain(payload)}" for payload in PAYLOADS),
            *(plain(payload) for payload in PAYLOADS),
            "\n".join(f"- {plain(payload)}" for payload in PAYLOADS),
            markdown_table(("plain", "bold"), rows),
        ]
    )
    artifact = made(server, page, plain(PAYLOADS[0]))
    asked: list[str] = []
    window.on("request", lambda request: asked.append(request.url))
    window.goto(server.sign_in_link())
    window.wait_for_url("**/deployments")
    window.goto(f"{server.url}/artifacts/artifact/{artifact}")
    shown = window.get_by_role("article").filter(has=window.get_by_role("table"))
    shown.get_by_role("cell").first.wait_for()
    cells = [" ".join(c.split()) for c in shown.get_by_role("cell").all_inner_texts()]

    wanted = [seen(payload) for payload in PAYLOADS]
    assert cells == [text for text in wanted for _ in range(2)]
    for kind in ("h2", ":scope > .markdown-renderer__text--paragraph", "li"):
        texts = [" ".join(t.split()) for t in shown.locator(kind).all_inner_texts()]
        assert [text for text in texts if text] == wanted, kind
    tags = set(shown.evaluate("node => [...node.querySelectorAll('*')].map(n => n.localName)"))
    assert tags <= KNOWN
    # The description above it, as the page and the list of artifacts show it.
    for place in (window.url, f"{server.url}/artifacts"):
        window.goto(place)
        window.get_by_text("click", exact=False).first.wait_for()
        assert window.locator("a[href*=evil], a[href*=javascript], img[src*=evil]").count() == 0
    # The other UI, which a person may switch to, makes links of bare addresses and nothing else.
    window.goto(f"{server.url}/v2/artifacts/artifact/{artifact}")
    window.get_by_text(PAYLOADS[0]).first.wait_for()
    links = window.locator("a[href*=evil], a[href*=javascript]").all()
    assert all(str(each.get_attribute("href")).endswith(each.inner_text()) for each in links)
    assert window.locator("img[src*=evil], em, del, code, b, i, blockquote").count() == 0
    assert window.title() != "owned"
    assert not [url for url in asked if "evil" in url]


def made(server: StackSettings, page: str, description: str) -> Any:
    """The id of a new artifact."""
    auth = tuple(server.auth_string.split(":"))
    with httpx.Client(base_url=f"{server.url}/api", auth=auth) as client:
        token = client.get("/csrf-token?client=t").json()["token"]
        headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "t"}
        asked = {"key": "k", "type": "markdown", "data": page, "description": description}
        reply = client.post("/artifacts/", json=asked, headers=headers)
        reply.raise_for_status()
        return reply.json()["id"]
