"""The explorer, the pictures and the reports over http, on an evaluation made by hand."""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.ranked_world import CAPTION, RankedWorld, ranked_world

if TYPE_CHECKING:
    import httpx

HERE = "http://127.0.0.1:8600"
WON = {"method": "cvsi", "against": "ldre", "k": "1", "outcome": "won"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> RankedWorld:
    return ranked_world(tmp_path_factory.mktemp("ranked"))


def ask(world: RankedWorld, path: str, **given: Any) -> httpx.Response:
    import httpx

    from deployments.service.app import create_app
    from deployments.service.settings import ServiceSettings

    async def asked() -> httpx.Response:
        app = create_app(ServiceSettings(world.profile))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            return await client.get(path, **given)

    return asyncio.run(asked())


def report_of(world: RankedWorld) -> str:
    from tasks.explorer.evaluations import folder_key

    return folder_key(world.report.parent)


def test_the_list_leads_to_every_query(world: RankedWorld) -> None:
    page = ask(world, "/benchmarks").text
    assert f'href="/benchmarks/{world.key}"' in page
    assert "embedded world" in page
    shown = ask(world, f"/benchmarks/{world.key}", params={**WON, "outcome": ""}).text
    assert shown.count('class="card strip"') == 10
    assert "Page 1 of 2" in shown
    second = ask(world, f"/benchmarks/{world.key}", params={"page": 2}).text
    assert second.count('class="card strip"') == 2


def test_one_method_right_and_the_other_wrong(world: RankedWorld) -> None:
    """By hand: cvsi has rank 1 six times, and ldre then 1, 3, 1, 2, 1, 1."""
    page = ask(world, f"/benchmarks/{world.key}", params=WON).text
    assert "CVSI right, LDRE wrong" in page
    assert page.count('class="card strip"') == 2
    assert CAPTION in page
    rows = ask(world, f"/benchmarks/{world.key}/queries.csv", params=WON)
    assert rows.headers["content-type"].startswith("text/csv")
    found = list(csv.DictReader(io.StringIO(rows.text)))
    assert {(row["rank/cvsi"], row["rank/ldre"]) for row in found} == {("1", "3"), ("1", "2")}
    one = ask(world, f"/benchmarks/{world.key}/query", params={"query": found[0]["query"]}).text
    assert one.count('class="answer"') == 2


def test_what_an_address_asks_wrongly_is_refused_in_words(world: RankedWorld) -> None:
    path = f"/benchmarks/{world.key}"
    for given, said in (
        ({"method": "cvsj"}, "did you mean 'cvsi'"),
        ({"outcome": "won"}, "give against="),
        ({"k": "x"}, "k"),
        ({"k": "51"}, "k: Input should be less than or equal to 50"),
        ({"page": "-1"}, "page: Input should be"),
        ({"order": "foo"}, "order: Input should be"),
        ({"low": "9" * 45}, "low: Input should be"),
        ({"high": "9" * 45}, "high: Input should be"),
    ):
        refused = ask(world, path, params=given)
        assert (refused.status_code, said in refused.text) == (422, True), refused.text
        assert "pydantic" not in refused.text
    assert ask(world, path, params={"utm_source": "mail"}).status_code == 200


def test_what_is_not_there_is_404_with_a_brief_echo(world: RankedWorld) -> None:
    long = "z" * 200
    for address in (
        f"/benchmarks/{long}",
        f"/benchmarks/{world.key}/query?query={long}",
        f"/pictures/{long}",
        f"/pictures/a%20{long}",
        f"/progress/{long}",
        f"/reports/{long}/report.html",
    ):
        refused = ask(world, address)
        assert refused.status_code == 404, refused.text
        assert "zzz..." in refused.text
        assert "z" * 81 not in refused.text


def test_a_page_behind_the_end_is_the_last_one(world: RankedWorld) -> None:
    last = ask(world, "/pictures/cirr-val", params={"page": "9" * 23})
    assert last.status_code == 200
    assert "/v1/images/" in last.text


def test_pictures_come_as_small_jpeg_and_only_by_their_content(world: RankedWorld) -> None:
    from PIL import Image

    from tasks.explorer.ranks import ranked_queries

    ranked = ranked_queries(world.profile.root, world.key)
    image_id = next(iter(ranked.query_set.image_ids.values()))
    small = ask(world, f"/v1/images/{image_id}/thumbnail", params={"side": 160})
    assert small.headers["content-type"] == "image/jpeg"
    assert max(Image.open(io.BytesIO(small.content)).size) <= 160
    assert ask(world, f"/v1/images/{'0' * 64}/thumbnail").status_code == 404
    assert ask(world, f"/v1/images/{image_id}/thumbnail", params={"side": 5000}).status_code == 422
    assert ask(world, "/v1/images/..%2f..%2fetc%2fpasswd/thumbnail").status_code in (404, 422)
    page = ask(world, "/pictures/cirr-val", params={"text": "by hand"}).text
    assert CAPTION in page
    assert ask(world, "/pictures/nothing").status_code == 404


def test_a_report_is_served_and_nothing_else(world: RankedWorld) -> None:
    key, folder = report_of(world), world.report.parent
    (folder / "secret.html").write_text("secret")
    (folder.parent / "report.html").write_text("secret")
    served = ask(world, f"/reports/{key}/report.html")
    assert served.content == world.report.read_bytes()
    assert "sandbox" in served.headers["content-security-policy"]
    assert f"/reports/{key}/report.html" in ask(world, "/reports").text
    for path in (
        f"/reports/{key}/secret.html",
        f"/reports/{key}/..%2freport.html",
        f"/reports/{key}/%2e%2e/report.html",
        f"/reports/{key}//etc/passwd",
        f"/reports/..%2f{key}/report.html",
        f"/reports/{key}/page.html",
        "/reports/0000000000000000/report.html",
    ):
        refused = ask(world, path)
        assert refused.status_code == 404, path
        assert "secret" not in refused.text.replace("secret.html", "")


def test_a_link_in_a_reports_folder_is_not_followed(world: RankedWorld, tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text("other")
    (world.report.parent / "page.html").symlink_to(tmp_path / "other.html")
    assert ask(world, f"/reports/{report_of(world)}/page.html").status_code == 404
