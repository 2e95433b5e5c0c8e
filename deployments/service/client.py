"""A client of the service's API.

with Client("http://127.0.0.1:8600") as client:
    reference = client.upload(Path("shirt.jpg").read_bytes())
    for hit in client.search("photos", "the same in red", image_id=reference.image_id).hits:
        print(hit.rank, hit.name, hit.score)
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel

from deployments.service.errors import Faulty
from deployments.service.records import (
    BatchAnswer,
    BatchRequest,
    Galleries,
    GalleryFacts,
    ImageFacts,
    MethodFacts,
    Methods,
    SearchAnswer,
    SearchRequest,
    Upload,
)

Record = TypeVar("Record", bound=BaseModel)


class Refused(Exception):
    """The service refused a request.

    Attributes:
        status: HTTP status.
        code: A word for programs; empty where the answer is not of the service's form.
        request_id: What its log calls the request.
    """

    def __init__(self, status: int, code: str, message: str, request_id: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id


class ServiceUnreachable(Exception):
    """No service answers at the address; the message says where it was looked for."""


class Client:
    """Asks one service. Methods raise `Refused` where it refuses, and `ServiceUnreachable` where
    none answers.

    Args:
        url: Its address.
        token: Its token, where it has one.
        http: An httpx client with the address and the token in it, in place of an own one.

    Raises:
        ServiceUnreachable: The address is not one.
    """

    def __init__(
        self,
        url: str = "",
        token: str = "",
        *,
        http: httpx.Client | None = None,
        timeout: float = 120,
    ) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = http or httpx.Client(base_url=url, headers=headers, timeout=timeout)
        except httpx.InvalidURL as error:
            raise _unreachable(url, error) from error

    def __enter__(self) -> Client:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close its connections."""
        self._http.close()

    def upload(self, picture: bytes) -> Upload:
        """Upload a reference."""
        return self._asked(Upload, "POST", "/v1/uploads", content=picture)

    def search(self, gallery: str, text: str, **given: Any) -> SearchAnswer:
        """Search a gallery; further arguments are fields of `SearchRequest`."""
        asked = SearchRequest(gallery=gallery, text=text, **given)
        return self._asked(SearchAnswer, "POST", "/v1/search", json=asked.model_dump())

    def batch(self, searches: Sequence[SearchRequest]) -> list[SearchAnswer]:
        """Several searches at once."""
        sent = BatchRequest(searches=list(searches)).model_dump()
        return self._asked(BatchAnswer, "POST", "/v1/search/batch", json=sent).answers

    def galleries(self) -> list[GalleryFacts]:
        """The collections of the root."""
        return self._asked(Galleries, "GET", "/v1/galleries").galleries

    def methods(self) -> list[MethodFacts]:
        """All methods."""
        return self._asked(Methods, "GET", "/v1/methods").methods

    def about(self, image_id: str, gallery: str = "") -> ImageFacts:
        """What a picture is."""
        given = {"gallery": gallery} if gallery else {}
        return self._asked(ImageFacts, "GET", f"/v1/images/{image_id}/about", params=given)

    def image(self, image_id: str, side: int | None = None) -> bytes:
        """A picture's own bytes, or its thumbnail with a longest side."""
        if side is None:
            return self._answer("GET", f"/v1/images/{image_id}").content
        return self._answer(
            "GET", f"/v1/images/{image_id}/thumbnail", params={"side": side}
        ).content

    def _asked(self, kind: type[Record], method: str, path: str, **sent: Any) -> Record:
        return kind.model_validate_json(self._answer(method, path, **sent).content)

    def _answer(self, method: str, path: str, **sent: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **sent)
        except httpx.TransportError as error:
            raise _unreachable(str(self._http.base_url), error) from error
        if answer.is_success:
            return answer
        try:
            fault = Faulty.model_validate_json(answer.content).error
        except ValueError:
            raise Refused(answer.status_code, "", answer.text[:500], "") from None
        raise Refused(answer.status_code, fault.code, fault.message, fault.request_id)


def _unreachable(url: str, error: Exception) -> ServiceUnreachable:
    return ServiceUnreachable(
        f"no service answers at {url} ({error}); `cirflow serve` starts one and prints its "
        "address, http://HOST:PORT"
    )
