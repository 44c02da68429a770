"""What the admin API's handlers find in their application and in a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from proxy.api.admin.problems import invalid_body
from proxy.api.app_keys import PRINCIPAL, REQUEST_ID
from proxy.api.body import read_json_body
from proxy.application.administration.administration import Actor, Administration
from proxy.application.administration.ports import BudgetReports, DeploymentSwitches, Page, RequestList
from proxy.application.administration.prices import nobody_uses_them
from proxy.application.ports import ConfigurationControl, PriceHistory, UsageReports
from proxy.application.siblings import NoSiblings, Siblings
from proxy.domain.errors import InvalidRequest, UnsupportedMediaType
from proxy.domain.storable import check_storable

_Body = TypeVar("_Body", bound=BaseModel)
_MOST_BODY_BYTES = 1024 * 1024
_MOST_ON_A_PAGE, _USUAL_ON_A_PAGE = 200, 50


@dataclass(frozen=True, slots=True)
class AdminApi:
    """The use cases. `deployments` and `configuration` are None where no gateway runs: in a command line."""

    administration: Administration
    budgets: BudgetReports
    prices: PriceHistory
    usage: UsageReports
    requests: RequestList
    deployments: DeploymentSwitches | None = None
    configuration: ConfigurationControl | None = None
    siblings: Siblings = field(default_factory=NoSiblings)
    take_up_prices: Callable[[], Awaitable[None]] = nobody_uses_them  # has this process use what was set


ADMIN = web.AppKey("admin", AdminApi)


def actor_of(request: web.Request) -> Actor:
    return Actor(request[PRINCIPAL], request.get(REQUEST_ID))


async def body_of(request: web.Request, kind: type[_Body]) -> _Body:
    """The body as this kind. Raises InvalidRequest with the fields that are wrong.

    The content type must be given: no page of another site can send it without being asked first (CSRF).
    """
    if request.content_type != "application/json":
        raise UnsupportedMediaType("Send the body as JSON, with 'Content-Type: application/json'.")
    raw = await read_json_body(request, _MOST_BODY_BYTES)
    try:
        return kind.model_validate_json(raw or b"{}")
    except ValidationError as problem:
        raise invalid_body(problem) from None


def page_of(request: web.Request, *filters: str) -> Page:
    """`limit`, `after` and the filters of the query. Raises InvalidRequest for others, and for text that is none."""
    query = request.query
    for name in query:
        if name not in (*filters, "limit", "after"):
            known = ", ".join((*filters, "limit", "after"))
            raise InvalidRequest(f"Unknown parameter {name[:64]!a}; known are {known}.", param=name[:64])
        if len(query.getall(name)) > 1:
            raise InvalidRequest(f"Parameter '{name}' is given twice.", param=name)
        check_storable(name, query[name])
    limit = query.get("limit", str(_USUAL_ON_A_PAGE))
    if not (
        limit.isascii()
        and limit.isdecimal()
        and len(limit) <= len(str(_MOST_ON_A_PAGE))
        and 1 <= int(limit) <= _MOST_ON_A_PAGE
    ):
        raise InvalidRequest(f"limit must be a whole number from 1 to {_MOST_ON_A_PAGE}.", param="limit")
    found = {name: query[name] for name in filters if name in query}
    return Page(filters=found, limit=int(limit), after=query.get("after"))


def named_page(views: Sequence[Mapping[str, Any]], name: str, page: Page) -> web.Response:
    """A page of what is all in memory, by its member `name`; the filter is a part of it, and `after` the last one."""
    part = page.filters.get("name", "").lower()
    after = page.after or ""
    left = sorted((each for each in views if part in each[name].lower() and each[name] > after), key=lambda v: v[name])
    shown = left[: page.limit]
    return web.json_response({"data": shown, "next": shown[-1][name] if len(left) > len(shown) else None})


def with_one_more(page: Page) -> Page:
    """To know whether there is another page."""
    return replace(page, limit=page.limit + 1)


def page_answer(views: list[dict[str, Any]], page: Page) -> web.Response:
    """Of what there is of `with_one_more(page)`: `next` is what to give as `after` for the next page, null if none."""
    shown = views[: page.limit]
    return web.json_response({"data": shown, "next": shown[-1]["id"] if len(views) > len(shown) else None})
