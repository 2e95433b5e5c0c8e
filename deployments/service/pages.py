"""Pages: templates of this folder with the navigation around them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fastapi.responses import HTMLResponse

from deployments.service.routers import navigation
from models.spelling import agreed, counted
from tasks.foreign_pictures import warning_for

if TYPE_CHECKING:
    from fastapi import Request
    from jinja2 import Environment

HERE: Final = Path(__file__).resolve().parent
STATIC: Final = HERE / "static"


@functools.cache
def environment() -> Environment:
    """The templates; what they show is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"agreed": agreed, "counted": counted}
    return made


def page(
    request: Request, template: str, *, status: int = 200, title: str, of: str = "", **shown: Any
) -> HTMLResponse:
    """A page of a template that extends `base.html`.

    Args:
        request: What was asked.
        template: File in `templates`.
        status: HTTP status.
        title: Title of the page.
        of: The gallery that it shows; pictures that do not fit the models are warned of.
        shown: What the template shows.
    """
    from deployments.service.state import service_of

    service = service_of(request)
    text = (
        environment()
        .get_template(template)
        .render(
            title=title,
            navigation=navigation(),
            here=request.url.path,
            profile=service.profile.name,
            root=service.root,
            warning=warning_for(service.profile, of) if of else "",
            **shown,
        )
    )
    return HTMLResponse(text, status, headers={"cache-control": "no-store"})
