"""Pages of Prefect's UI, as far as a person needs them here; each method is something one does.

Prefect gives its elements no test ids, so they are found by what they say, and by the UI's own
class names where several say the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

from playwright.sync_api import Locator, Page, Request, Response, TimeoutError, expect

END_SECONDS = 600
"""Longest wait for a flow run: on a busy machine its imports alone take a minute."""
ENDS = re.compile("^(Completed|CompletedWithGaps|Failed|Crashed|Cancelled|TimedOut)$")
TRIES = 5
"""How often a person would try again: SQLite was locked (the server then answers 503), or a page
that was still being drawn lost the click."""
LOST_MS = 30_000
"""A click that has had no effect for so long was lost."""


def until(act: Callable[[], None], shown: Locator) -> None:
    """Do something that may be done again until the page shows its effect."""
    for _ in range(TRIES - 1):
        act()
        try:
            shown.wait_for(timeout=LOST_MS)
        except TimeoutError:
            continue
        return
    act()
    expect(shown).to_be_visible()


@dataclass(frozen=True)
class Field:
    """One labelled field of a form, or a group of them.

    Attributes:
        place: Where it stands.
        written: Checks that the form still shows what was put into it and its neighbours.
    """

    place: Locator
    written: list[Callable[[], None]] = field(default_factory=list)

    def field(self, label: str) -> Field:
        """The field of that label inside this one; Prefect adds "(Optional)" to some labels."""
        wanted = f"^{re.escape(label)}( \\(Optional\\))?$".replace("\\", "\\\\")
        return Field(
            self.place.locator(
                ".schema-form-property:has(> .p-label__header "
                f'.schema-form-property__label:text-matches("{wanted}"))'
            ),
            self.written,
        )

    def write(self, value: str | int) -> None:
        """Put a text or a number into it."""
        box = self.place.locator("textarea, input").first

        def shows() -> None:
            if box.input_value() != str(value):  # defaults of the form came after it
                box.fill(str(value))
            expect(box).to_have_value(str(value))

        shows()
        self.written.append(shows)

    def choose(self, *values: str) -> None:
        """Choose in its drop-down."""
        with self._opened() as options:
            for value in values:
                options.get_by_text(value, exact=True).click()
        for value in values:
            chosen = self.place.get_by_text(value, exact=True).first
            self.written.append(expect(chosen).to_be_visible)

    def choices(self) -> list[str]:
        """What its drop-down offers."""
        with self._opened() as options:
            return [text.strip() for text in options.all_inner_texts()]

    def pick(self, value: str) -> None:
        """Choose what exists; the form then shows it as the field's text."""
        with self._opened() as options:
            options.get_by_text(value, exact=True).click()
        text = self.place.locator("textarea").first
        self.written.append(lambda: expect(text).to_have_value(value))
        self.written[-1]()

    @contextmanager
    def _opened(self) -> Iterator[Locator]:
        """Its drop-down, open. In this version of the UI a click on its text closes it again at
        once; the arrow beside it opens it."""
        options = self.place.page.get_by_role("option")
        listed = self.place.get_by_role("button", name="one that exists", exact=True)
        expect(self.place.locator("textarea, .p-select-button__icon").first).to_be_visible()
        if listed.count():
            listed.click()
        until(self.place.locator(".p-select-button__icon").first.click, options.first)
        yield options
        self.place.page.get_by_role("heading", name="Parameters", exact=True).click()
        expect(options).to_have_count(0)


class DeploymentPage:
    """A deployment: its runs, its schedules and the way to its form."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def open(self, url: str, name: str) -> DeploymentPage:
        """Look for it among the deployments, and click."""
        self._page.goto(f"{url}/deployments")
        search = self._page.get_by_placeholder("Search deployments...")
        until(lambda: search.fill(name), self._page.get_by_text("1 Deployment", exact=True))
        self._page.get_by_role("link", name=name, exact=True).first.click()
        expect(self._run).to_be_visible()
        return self

    @property
    def _run(self) -> Locator:
        return self._page.get_by_role("button", name="Run", exact=True)

    def custom_run(self) -> RunForm:
        """Run > Custom run."""
        custom = self._page.get_by_text("Custom run", exact=True)
        until(self._run.click, custom)
        custom.click()
        return RunForm(self._page)

    def first_run(self, name: str) -> RunPage:
        """Wait until the list of runs has some of that name; open the oldest."""
        self._page.get_by_role("tablist").get_by_text("Runs", exact=True).click()
        oldest = self._page.locator(".flow-run-list-item").get_by_role("link", name=name).last
        oldest.click(timeout=END_SECONDS * 1000)
        return RunPage(self._page)

    def switch_schedule_on(self) -> None:
        """Move the switch beside the schedule that is shipped."""
        switch = self._schedule.get_by_role("switch")
        expect(switch).to_have_attribute("aria-checked", "false")
        self._saved(switch.click)
        expect(switch).to_have_attribute("aria-checked", "true")

    def switch_schedule_off(self) -> None:
        """Move it back."""
        switch = self._schedule.get_by_role("switch")
        self._saved(switch.click)
        expect(switch).to_have_attribute("aria-checked", "false")

    def edit_schedule(self, cron: str) -> None:
        """Schedule > Edit, and another time."""
        edit = self._page.get_by_text("Edit", exact=True)
        until(self._schedule.get_by_role("button").click, edit)
        edit.click()
        dialog = self._page.get_by_role("dialog")
        value = dialog.locator('.p-label:has(> .p-label__header :text-is("Value")) input')
        value.fill(cron)
        self._saved(dialog.get_by_role("button", name="Save").click)
        expect(dialog).to_be_hidden()

    def schedule_in_vain(self, parameter: str, value: int) -> str:
        """Schedule > one number of the form overridden > Save; returns what the dialog says."""
        dialog = self._page.get_by_role("dialog")
        until(self._page.get_by_role("button", name="Schedule", exact=True).click, dialog)
        option = self._page.get_by_role("option").get_by_text(parameter, exact=True)
        until(dialog.locator(".p-select-button__icon").last.click, option)
        option.click()
        dialog.get_by_text("Add schedule").click()  # closes the list
        box = dialog.locator(".schema-form-property input")
        box.fill(str(value))
        save = dialog.get_by_role("button", name="Save").click
        verdict = asked(self._page, save, "POST", "/ui/schemas/validate").json()
        assert not verdict["valid"], "the server finds nothing wrong"
        complaint = dialog.locator(".schema-form-property .p-label__message--failed")
        expect(complaint).to_be_visible()
        return complaint.inner_text()

    @property
    def _schedule(self) -> Locator:
        return self._page.locator(".deployment-schedule-card")

    def _saved(self, act: Callable[[], None]) -> None:
        """Do something that saves the schedule."""
        asked(self._page, act, "PATCH", "/schedules/")


def asked(page: Page, act: Callable[[], None], method: str, path: str) -> Response:
    """Do what makes the page ask the server; again only if nothing was asked, or all in vain.

    Raises:
        AssertionError: the server refused, or nothing came of it.
    """

    def wanted(request: Request) -> bool:
        return request.method == method and path in request.url

    said = "nothing was asked"
    for _ in range(TRIES):
        try:
            with page.expect_request(wanted, timeout=LOST_MS) as request:
                act()
        except TimeoutError:
            continue
        answer = request.value.response()
        if answer is not None and answer.ok:
            return answer
        said = "no answer" if answer is None else f"{answer.status} {answer.text()}"
        # Others than 503, the answer of a server whose database was locked, are final.
        assert answer is None or answer.status == 503, said
    raise AssertionError(f"{method} {path} failed {TRIES} times, at last: {said}")


class RunForm:
    """The form of a custom run."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._form = Field(page.locator(".schema-input"))
        expect(page.get_by_role("button", name="Submit")).to_be_visible()

    def field(self, *labels: str) -> Field:
        """A field, by its label and those of the groups around it, outermost first."""
        found = self._form
        for label in labels:
            found = found.field(label)
        return found

    def use_json(self) -> Locator:
        """Parameters > Use JSON input; returns the editor."""
        self._page.locator(".flow-run-create-form-v2__header button").click()
        self._page.get_by_text("Use JSON input", exact=True).click()
        return self._page.locator(".p-code-input textarea")

    def submit_in_vain(self) -> str:
        """Submit what is wrong; returns what the form says against it."""
        here = self._page.url
        assert not self._checked()["valid"], "the server finds nothing wrong"
        complaint = self._complaint()
        assert self._page.url == here, "the form was left although a value is wrong"
        return complaint

    def submit(self) -> RunPage:
        """Submit it once, and follow the notice to the run.

        The form leads back to the deployment on its own. A click on the notice before that is
        undone by it, so it comes after.

        Raises:
            AssertionError: the form complains, or the server made no run of it.
        """
        for shows in self._form.written:
            shows()
        form = self._page.url
        for _ in range(TRIES):
            with self._page.expect_response(_makes_a_run) as made:
                if not self._checked()["valid"]:
                    raise AssertionError(f"the form complains: {self._complaint()}")
            if made.value.ok:
                break
            assert made.value.status == 503, made.value.text()
        else:
            raise AssertionError(f"no run was made: {made.value.text()}")
        self._page.wait_for_url(lambda url: url != form)
        run = made.value.json()["id"]
        # The notice is there twice, one for screen readers; the last lies on top. It goes soon.
        try:
            self._page.get_by_role("button", name="View run").last.click(timeout=LOST_MS)
        except TimeoutError:
            self._page.goto(f"{urljoin(self._page.url, '/runs/flow-run/')}{run}")
        self._page.wait_for_url(f"**/{run}**")
        return RunPage(self._page)

    def _checked(self) -> Any:
        """Press Submit, which first asks the server whether the values are right; its verdict."""
        press = self._page.get_by_role("button", name="Submit").click
        return asked(self._page, press, "POST", "/ui/schemas/validate").json()

    def _complaint(self) -> str:
        """What the form says against its values, once it says so."""
        expect(self._page.locator(".schema-input").get_by_role("listitem").first).to_be_visible()
        return self._page.locator(".schema-input").inner_text()


def _makes_a_run(response: Response) -> bool:
    return response.request.method == "POST" and response.url.endswith("/create_flow_run")


class RunPage:
    """A flow run."""

    def __init__(self, page: Page) -> None:
        self._page = page
        expect(self._state).to_be_visible()

    @property
    def _state(self) -> Locator:
        return self._page.locator("header .state-badge").first

    def wait_for_end(self) -> str:
        """Watch the page until the run has ended; returns the state that it shows."""
        expect(self._state).to_have_text(ENDS, timeout=END_SECONDS * 1000)
        return self._state.inner_text().strip()

    def log(self) -> str:
        """What the tab Logs shows."""
        self.tab("Logs")
        return self._page.get_by_role("tabpanel").inner_text()

    def tags(self) -> list[str]:
        """The tags beside its name."""
        return self._page.locator("header .state-list-item__tags .p-tag").all_inner_texts()

    def detail(self, label: str) -> str:
        """One value of the tab Details."""
        self.tab("Details")
        return self._page.locator(
            f'.p-key-value:has(> .p-key-value__label:text-is("{label}")) .p-key-value__value'
        ).inner_text()

    def tab(self, name: str) -> None:
        """Click a tab."""
        tabs = self._page.get_by_role("tablist")
        active = tabs.locator(".p-tab__active", has_text=re.compile(rf"^\s*{name}\s*$"))
        until(tabs.get_by_text(name, exact=True).click, active)

    def artifact(self, key: str) -> ArtifactPage:
        """Artifacts, and the card of that key."""
        self.tab("Artifacts")
        self._page.get_by_role("link").filter(
            has=self._page.locator(".artifact-card__title", has_text=re.compile(f"^{key}$"))
        ).click()
        return ArtifactPage(self._page)


class ArtifactPage:
    """One artifact with tables and links."""

    def __init__(self, page: Page) -> None:
        self._page = page
        expect(page.get_by_role("table").first).to_be_visible()

    def opened(self, link: str) -> Page:
        """Click a link; returns the page that opened, here or in a window of its own."""
        found = self._page.get_by_role("link", name=link, exact=True)
        place = str(found.get_attribute("href"))
        if found.get_attribute("target") == "_blank":
            with self._page.context.expect_page() as opened:
                found.click()
            shown = opened.value
        else:
            found.click()
            shown = self._page
        shown.wait_for_url(place)
        return shown

    def table(self, with_column: str) -> list[dict[str, str]]:
        """Rows of the table that has a column of that name, as the page shows them."""
        header = self._page.get_by_role("columnheader", name=with_column, exact=True)
        table = self._page.get_by_role("table").filter(has=header)
        columns = table.get_by_role("columnheader").all_inner_texts()
        rows = [row.get_by_role("cell").all_inner_texts() for row in table.get_by_role("row").all()]
        return [_row(columns, row) for row in rows if row]


def _row(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    return dict(zip((c.strip() for c in columns), (c.strip() for c in cells), strict=True))
