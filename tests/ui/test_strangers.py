"""A page of a foreign origin, also under a name that was rebound to this machine, gets nothing.

The browser, the names and the server are real. `rebound.test` serves a page first, as an attacker's
server does; then the name leads to loopback, and the page asks for what the attacker wants.
"""

from __future__ import annotations

import subprocess
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

from deployments.stack.settings import StackSettings
from tests.ui.conftest import REBOUND

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

ATTACK = """
async ([api, sockets]) => {
  const seen = {};
  const ask = async (name, url, options) => {
    try {
      const reply = await fetch(url, options);
      seen[name] = [reply.status, reply.type, await reply.text()];
    } catch (error) { seen[name] = ["no answer"]; }
  };
  await ask("token", `${api}/csrf-token?client=x`);
  await ask("settings", api.replace("/api", "/ui-settings"));
  const json = {"Content-Type": "application/json"};
  await ask("flow", `${api}/flows/`, {method: "POST", headers: json, body: '{"name": "planted"}'});
  await ask("blind", `${api}/flows/`, {method: "POST", mode: "no-cors", body: '{"name": "blind"}'});
  for (const [name, url] of Object.entries(sockets))
    seen[name] = await new Promise((done) => {
      const socket = new WebSocket(url, "prefect");
      socket.onopen = () => done("open");
      socket.onerror = () => done("refused");
    });
  return seen;
}
"""


def flows(stack: StackSettings) -> list[str]:
    """Names of the flows that the server knows."""
    auth = tuple(stack.auth_string.split(":"))
    with httpx.Client(base_url=stack.url, auth=auth) as client:
        token = client.get("/api/csrf-token?client=t").json()["token"]
        headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "t"}
        return [found["name"] for found in client.post("/api/flows/filter", headers=headers).json()]


def attack(window: Page, page: str, server: str) -> Any:
    """What a page of one origin gets from the server at another (or the same) name."""
    window.route(
        f"{page}/lure", lambda route: route.fulfill(body="<p>hello", content_type="text/html")
    )
    window.goto(f"{page}/lure")
    name = server.removeprefix("http://")
    sockets = {
        "rebound socket": f"ws://{page.removeprefix('http://')}/api/events/in",
        "foreign socket": f"ws://{name}/api/events/out",
        "logs socket": f"ws://{name}/api/logs/out",
    }
    return window.evaluate(ATTACK, [f"{server}/api", sockets])


def test_a_page_whose_name_was_rebound_is_refused(server: StackSettings, window: Page) -> None:
    rebound = f"http://{REBOUND}:{server.port}"
    seen = attack(window, rebound, rebound)
    sockets = {name: seen.pop(name) for name in list(seen) if name.endswith("socket")}
    assert set(sockets.values()) == {"refused"}
    for name, (status, *answer) in seen.items():
        assert status == 403, (name, answer)
        assert "token" not in answer[-1]
    assert flows(server) == []


def test_a_foreign_page_is_refused_at_the_address_itself(
    server: StackSettings, window: Page
) -> None:
    seen = attack(window, "http://foreign.test", server.url)
    assert seen.pop("blind")[:2] == [0, "opaque"]  # sent, and not let in: no flow was made
    assert seen == {
        **{name: ["no answer"] for name in ("token", "settings", "flow")},
        **dict.fromkeys(("foreign socket", "logs socket", "rebound socket"), "refused"),
    }
    assert flows(server) == []


def test_a_link_signs_one_browser_in(server: StackSettings, window: Page) -> None:
    window.goto(f"{server.url}/deployments")
    window.wait_for_url("**/login**")
    link = server.sign_in_link()
    window.goto(link)
    window.wait_for_url(f"{server.url}/deployments")
    window.get_by_text("Deployments", exact=True).first.wait_for()
    assert link.partition("#")[2] not in window.evaluate("location.href")
    # The string lies where this origin alone finds it: cookies would go to every port.
    assert window.context.cookies() == []
    window.evaluate("localStorage.clear()")
    window.goto(link)
    window.get_by_text("This link was used").wait_for()
    assert (
        subprocess.run(["ps", "axww"], capture_output=True, text=True).stdout.count(
            server.auth_string.partition(":")[2]
        )
        == 0
    )
