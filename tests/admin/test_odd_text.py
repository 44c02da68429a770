"""Text that no database takes is the client's mistake, told by its place, and never the name of something else."""

from __future__ import annotations

from typing import Any

import pytest
from yarl import URL

from tests.admin.company import MASTER, done
from tests.admin.test_lives import BODIES
from tests.harness import TestGateway

FILTERS = {
    "v1/usage?by=model": ("key", "team", "organisation", "since"),
    "admin/usage?by=model": ("key", "team", "organisation", "until"),
    "admin/requests?limit=1": ("key", "team", "model", "provider", "status", "end_user", "request_id", "after"),
    "admin/audit?limit=1": ("actor", "action", "kind", "object", "after"),
    "admin/keys?limit=1": ("name", "team", "organisation", "owner", "role", "disabled", "after"),
    "admin/teams?limit=1": ("name", "organisation"),
    "admin/organisations?limit=1": ("name", "disabled"),
    "admin/budgets?scope=model": ("name", "subject"),
    "admin/limits?scope=key": ("subject",),
    "admin/prices?limit=1": ("name", "after"),
    "admin/deployments?limit=1": ("name", "after"),
}


async def told_by(gateway: TestGateway, path: str) -> tuple[int, Any]:
    target = URL(f"{gateway.url}{path}", encoded=True)
    async with gateway.http.get(target, headers={"Authorization": f"Bearer {MASTER}"}) as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.parametrize("path", FILTERS)
@pytest.mark.parametrize("text", ["%00", "a%00b"])
async def test_a_nul_in_a_query_is_told_by_the_parameter(gateway: TestGateway, path: str, text: str) -> None:
    for name in FILTERS[path]:
        status, told = await told_by(gateway, f"{path}&{name}={text}")
        param = told["error"]["param"] if "error" in told else told["errors"][0]["field"]
        assert (status, param) == (400, name), told


async def test_a_name_with_a_nul_is_not_the_name_without_it(gateway: TestGateway) -> None:
    for kind in ("organisations", "teams", "keys", "budgets"):
        made = await done(gateway, "POST", f"/{kind}", {**BODIES[kind], "name": "named"})
        assert (await told_by(gateway, f"admin/{kind}/named"))[1]["id"] == made["id"]
        assert (await told_by(gateway, f"admin/{kind}/named%00"))[0] == 404
