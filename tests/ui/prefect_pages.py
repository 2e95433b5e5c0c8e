"""Pages of Prefect's UI, as far as a person needs them here; each method is something one does.

Prefect gives its elements no test ids, so they are found by what they say, and by the UI's own
class names where several say the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from playwright.sync_api import Locator, Page, Response, expect

END_SECONDS = 600
"""Longest wait for a flow run: on a busy machine its imports alone take a minute."""
ENDS = re.compile("^(Completed|CompletedWithGaps|Failed|Crashed|Cancelled|TimedOut)$")
TRIES = 5
"""How often a person would try again when SQLite was locked (the server then answers 503)."""


@dataclass(frozen=True)
class Field:
    """One labelled field of a form, or a group of them."""

    place: Locator

    def field(self, label: str) -> Field:
        """The field of that label inside this one; Prefect adds "(Optional)" to some labels."""
        wanted = f"^{re.escape(label)}( \\(Optional\\))?$".replace("\\", "\\\\")
        return Field(
            self.place.locator(
                ".schema-form-property:has(> .p-label__header "
                f'.schema-form-property__label:text-matches("{wanted}"))'
            )
        )

    def write(self, value: str | int) -> None:
        """Put a text or a number into it."""
        self.place.locator("textarea, input").first.fill(str(value))

    def choose(self, *values: str) -> None:
        """Choose in its drop-down."""
        with self._opened() as options:
            for value in values:
                options.get_by_text(value, exact=True).click()

    def choices(self) -> list[str]:
        """What its drop-down offers."""
        with self._opened() as options:
            return [text.strip() for text in options.all_inner_texts()]

    @contextmanager
    def _opened(self) -> Iterator[Locator]:
        """Its drop-down, open. In this version of the UI a click on its text closes it again at
        once; the arrow beside it opens it."""
        options = self.place.page.get_by_role("option")
        self.place.locator(".p-select-button__icon").first.click()
        expect(options.first).to_be_visible()
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
        self._page.get_by_placeholder("Search deployments...").fill(name)
        expect(self._page.get_by_text("1 Deployment", exact=True)).to_be_visible()
        self._page.get_by_role("link", name=name, exact=True).first.click()
        expect(self._page.get_by_role("button", name="Run", exact=True)).to_be_visible()
        return self

    def custom_run(self) -> RunForm:
        """Run > Custom run."""
        self._page.get_by_role("button", name="Run", exact=True).click()
        self._page.get_by_text("Custom run", exact=True).click()
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
        self._schedule.get_by_role("button").click()
        self._page.get_by_text("Edit", exact=True).click()
        dialog = self._page.get_by_role("dialog")
        value = dialog.locator('.p-label:has(> .p-label__header :text-is("Value")) input')
        value.fill(cron)
        self._saved(dialog.get_by_role("button", name="Save").click)
        expect(dialog).to_be_hidden()

    @property
    def _schedule(self) -> Locator:
        return self._page.locator(".deployment-schedule-card")

    def _saved(self, act: Callable[[], None]) -> None:
        """Do something that saves the schedule, again if the database was locked."""
        for _ in range(TRIES):
            with self._page.expect_response(_saves_a_schedule) as answer:
                act()
            if answer.value.ok:
                return
            assert answer.value.status == 503, answer.value.text()
        raise AssertionError(f"the server's database was locked {TRIES} times")


def _saves_a_schedule(response: Response) -> bool:
    return response.request.method == "PATCH" and "/schedules/" in response.url


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
        self._page.get_by_role("button", name="Submit").click()
        complaint = self._page.locator(".schema-input").get_by_role("listitem").first
        expect(complaint).to_be_visible()
        assert self._page.url == here, "the form was left although a value is wrong"
        return self._page.locator(".schema-input").inner_text()

    def submit(self) -> RunPage:
        """Submit it and follow the notice to the run.

        The form leads back to the deployment on its own. A click on the notice before that is
        undone by it, so it comes after.
        """
        form = self._page.url
        self._page.get_by_role("button", name="Submit").click()
        self._page.wait_for_url(lambda url: url != form)
        # The notice is there twice, one for screen readers; the last lies on top.
        self._page.get_by_role("button", name="View run").last.click()
        return RunPage(self._page)


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
        self._page.get_by_role("tablist").get_by_text(name, exact=True).click()

    def artifact(self, key: str) -> ArtifactPage:
        """Artifacts, and the card of that key."""
        self.tab("Artifacts")
        self._page.get_by_role("link").filter(
            has=self._page.locator(".artifact-card__title", has_text=re.compile(f"^{key}$"))
        ).click()
        return ArtifactPage(self._page)


class ArtifactPage:
    """One artifact with tables."""

    def __init__(self, page: Page) -> None:
        self._page = page
        expect(page.get_by_role("table").first).to_be_visible()

    def table(self, with_column: str) -> list[dict[str, str]]:
        """Rows of the table that has a column of that name, as the page shows them."""
        header = self._page.get_by_role("columnheader", name=with_column, exact=True)
        table = self._page.get_by_role("table").filter(has=header)
        columns = table.get_by_role("columnheader").all_inner_texts()
        rows = [row.get_by_role("cell").all_inner_texts() for row in table.get_by_role("row").all()]
        return [_row(columns, row) for row in rows if row]


def _row(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    return dict(zip((c.strip() for c in columns), (c.strip() for c in cells), strict=True))
