"""What is administered, from its making to its end."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from jsonschema import Draft202012Validator

from tests.access.tenancy import Tenancy
from tests.admin.company import MASTER, Company, ask, done
from tests.harness import HELLO, TestGateway, Upstream

BODIES: dict[str, dict[str, Any]] = {
    "organisations": {"name": "Acme", "models": ["gpt-*"], "metadata": {"cost centre": 7}},
    "teams": {"name": "Search", "models": ["gpt-*"], "metadata": {"a": [1, None, {"b": "ü"}]}},
    "keys": {"name": "CI", "owner": "anna", "tags": ["a"], "models": ["gpt-*"], "endpoints": ["models"]},
    "budgets": {"name": "all", "scope": "gateway", "amount_usd": "10.000000000001", "period": "rolling:86400"},
    "limits": {"scope": "gateway", "requests_per_minute": 60, "concurrent_requests": 4},
}
PATCHES: dict[str, dict[str, Any]] = {
    "organisations": {"models": None, "disabled": True},
    "teams": {"models": None, "metadata": {}},
    "keys": {"owner": None, "models": None, "endpoints": None, "tags": [], "priority": "high"},
    "budgets": {"amount_usd": "20.5", "hard": False, "warn_percent": 50},
    "limits": {"requests_per_minute": None, "tokens_per_minute": 1000},
}


@pytest.mark.parametrize("kind", BODIES)
async def test_each_kind_is_made_read_and_changed(gateway: TestGateway, kind: str) -> None:
    made = await done(gateway, "POST", f"/{kind}", BODIES[kind])
    made.pop("key", None)
    assert {name: made[name] for name in BODIES[kind]} == BODIES[kind]
    named = [made["id"], *([made["name"]] if "name" in made else [])]
    for name in named:
        found = await done(gateway, "GET", f"/{kind}/{name}")
        assert {field: found[field] for field in made} == made
    changed = await done(gateway, "PATCH", f"/{kind}/{named[-1]}", PATCHES[kind])
    assert changed == {**made, **PATCHES[kind]}
    assert await done(gateway, "PATCH", f"/{kind}/{made['id']}", {}) == changed
    assert changed in (await done(gateway, "GET", f"/{kind}"))["data"]
    for method, path in (("PATCH", f"/{made['id']}"), ("POST", "")):
        known = BODIES[kind] if method == "POST" else {}
        answer = await ask(gateway, MASTER, method, f"/{kind}{path}", {**known, "nonsense": 1})
        assert (answer.status, answer.body["type"]) == (400, "urn:llmgateway:invalid_body")
        assert [each["field"] for each in answer.body["errors"]] == ["nonsense"]


@pytest.mark.parametrize("value", [[1, [2], 3], [0, [5], 0], ["a", [], 0], [], {}, True])
@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("budgets", BODIES["budgets"], "amount_usd"),
        ("keys", BODIES["keys"], "monthly_budget_usd"),
        ("prices", {"model": "a/b", "output_cost_per_1m_tokens": 1}, "input_cost_per_1m_tokens"),
    ],
)
async def test_an_amount_is_one_number(
    gateway: TestGateway, kind: str, body: dict[str, Any], field: str, value: Any
) -> None:
    answer = await ask(gateway, MASTER, "POST", f"/{kind}", {**body, field: value})
    assert (answer.status, answer.body["type"]) == (400, "urn:llmgateway:invalid_body")
    assert [each["field"] for each in answer.body["errors"]] == [field]


async def test_a_new_key_has_not_ended_already_and_a_change_may_end_one(gateway: TestGateway) -> None:
    past = "2020-01-01T00:00:00+00:00"
    refused = await ask(gateway, MASTER, "POST", "/keys", BODIES["keys"] | {"expires_at": past})
    assert (refused.status, "expires_at" in refused.body["detail"]) == (400, True)
    assert (await done(gateway, "GET", "/keys"))["data"] == []
    made = await done(gateway, "POST", "/keys", BODIES["keys"])
    assert (await done(gateway, "PATCH", f"/keys/{made['id']}", {"expires_at": past}))["expires_at"] == past


@pytest.mark.parametrize("kind", ["budgets", "limits"])
async def test_what_was_deleted_is_gone(gateway: TestGateway, kind: str) -> None:
    made = await done(gateway, "POST", f"/{kind}", BODIES[kind])
    await done(gateway, "DELETE", f"/{kind}/{made['id']}")
    for method in ("GET", "PATCH", "DELETE"):
        body: dict[str, Any] | None = {} if method == "PATCH" else None
        assert (await ask(gateway, MASTER, method, f"/{kind}/{made['id']}", body)).status == 404
    assert (await done(gateway, "GET", f"/{kind}"))["data"] == []


async def test_a_second_limit_for_a_subject_is_refused_and_the_first_one_named(
    gateway: TestGateway, firm: Company
) -> None:
    team = {"scope": "team", "subject": firm.ids["team_id"], "requests_per_minute": 60}
    first = await done(gateway, "POST", "/limits", team)
    again = await ask(gateway, MASTER, "POST", "/limits", {**team, "tokens_per_minute": 1})
    assert again.status == 409
    assert f"PATCH /admin/limits/{first['id']}" in again.body["detail"]
    await done(gateway, "POST", "/limits", {**team, "subject": firm.ids["sibling_id"]})
    await done(gateway, "DELETE", f"/limits/{first['id']}")
    await done(gateway, "POST", "/limits", team)


async def test_of_limits_for_a_subject_that_are_made_at_once_one_is(gateway: TestGateway) -> None:
    body = {"scope": "model", "subject": "*", "requests_per_minute": 60}
    answers = await asyncio.gather(*(ask(gateway, MASTER, "POST", "/limits", body) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [201, *[409] * 7]
    assert len((await done(gateway, "GET", "/limits"))["data"]) == 1


@pytest.mark.parametrize("kind", ["organisations", "teams"])
async def test_a_name_that_is_taken_is_told(gateway: TestGateway, kind: str) -> None:
    await done(gateway, "POST", f"/{kind}", {"name": "one"})
    other = await done(gateway, "POST", f"/{kind}", {"name": "two"})
    for method, path in (("POST", ""), ("PATCH", f"/{other['id']}")):
        answer = await ask(gateway, MASTER, method, f"/{kind}{path}", {"name": "one"})
        assert answer.status == 409
        assert answer.body["errors"] == [{"field": "name", "message": "The name is taken: another one has it."}]


@pytest.mark.parametrize("kind", ["organisations", "teams", "keys", "budgets", "limits", "audit"])
async def test_pages_have_everything_once_also_what_was_made_at_the_same_moment(
    gateway: TestGateway, tenancy: Tenancy, kind: str
) -> None:
    made = [kind] if kind != "audit" else ["limits"]
    for number in range(7):
        own = {"scope": "model", "subject": f"n{number}"} if made[0] == "limits" else {"name": f"n{number}"}
        body = BODIES[made[0]] | own
        await done(gateway, "POST", f"/{made[0]}", body)
    table, column = {
        "keys": ("virtual_keys", "created_at"),
        "limits": ("rate_limits", "created_at"),
        "audit": ("audit_log", "timestamp"),
    }.get(kind, (kind, "created_at"))
    await tenancy.execute(f"UPDATE {table} SET {column} = (SELECT MIN({column}) FROM {table})")
    everything = [each["id"] for each in (await done(gateway, "GET", f"/{kind}?limit=200"))["data"]]
    paged, after = list[str](), ""
    while True:
        page = await done(gateway, "GET", f"/{kind}?limit=3{after}")
        paged += [each["id"] for each in page["data"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert len(set(everything)) == len(everything) == 7
    assert paged == everything
    full = await done(gateway, "GET", f"/{kind}?limit=7")
    assert ([each["id"] for each in full["data"]], full["next"]) == (everything, None)


async def test_prices_and_deployments_come_in_pages_by_name(gateway: TestGateway) -> None:
    everything = (await done(gateway, "GET", "/prices"))["data"]
    names = [each["model"] for each in everything]
    assert len(names) == 3
    assert names == sorted(names)
    first = await done(gateway, "GET", "/prices?limit=2")
    rest = await done(gateway, "GET", f"/prices?limit=2&after={first['next']}")
    assert (first["data"] + rest["data"], rest["next"]) == (everything, None)
    assert [each["model"] for each in (await done(gateway, "GET", "/prices?name=GLM"))["data"]] == ["z-ai/glm-4.6"]
    deployments = await done(gateway, "GET", "/deployments?name=router")
    assert ([each["name"] for each in deployments["data"]], deployments["next"]) == (["OpenRouter"], None)
    assert (await done(gateway, "GET", "/deployments?name=other"))["data"] == []


async def test_filters_leave_what_fits(gateway: TestGateway, firm: Company) -> None:
    async def names(query: str) -> set[str]:
        return {each["name"] for each in (await done(gateway, "GET", query))["data"]}

    ids = firm.ids
    assert await names("/keys?role=auditor") == {"auditor", "auditor of the team"}
    assert await names(f"/keys?team={ids['sibling_id']}") == {"lead of another team"}
    assert await names(f"/keys?organisation={ids['other_organisation_id']}") == {"head of another"}
    assert await names("/keys?name=LEAD&role=team_admin&disabled=false") == {
        "lead",
        "restricted lead",
        "lead with endpoints",
        "lead of another team",
    }
    assert await names("/keys?disabled=true") == set()
    assert await names("/keys?name=%25") == set()
    assert len(await names(f"/teams?organisation={ids['organisation_id']}")) == 2
    names_of = await firm.target()
    for kind, made in (("budgets", "budget"), ("limits", "limit")):
        found = (await done(gateway, "GET", f"/{kind}?scope=key&subject={names_of['key']}"))["data"]
        assert [each["id"] for each in found] == [names_of[made]]
    for wrong in (
        "limit=0",
        "limit=201",
        "limit=x",
        f"limit=1{'0' * 5000}",
        "limit=0000000011",
        "nonsense=1",
        "name=a&name=b",
    ):
        assert (await ask(gateway, MASTER, "GET", f"/keys?{wrong}")).status == 400
    for wrong in ("since=x", "since=0001-01-01T00:00%2B23:59", "until=9999-12-31T23:59-23:59"):
        assert (await ask(gateway, MASTER, "GET", f"/requests?{wrong}")).status == 400
        assert (await ask(gateway, MASTER, "GET", f"/audit?{wrong}")).status == 400


async def test_requests_and_usage_are_told_by_filters(gateway: TestGateway, firm: Company, upstream: Upstream) -> None:
    made = await done(gateway, "POST", "/keys", {"name": "calls", "team": firm.ids["team_id"]})
    for request_id in ("one", "two", "three"):
        status, _, _ = await gateway.chat(
            {**HELLO, "user": f"user {request_id}"}, authorization=f"Bearer {made['key']}", x_request_id=request_id
        )
        assert status == 200
    await gateway.rows(3)

    async def found(query: str, by: str = MASTER) -> list[str]:
        return [each["request_id"] for each in (await done(gateway, "GET", f"/requests?{query}", by=by))["data"]]

    assert await found("") == ["three", "two", "one"]
    assert await found("key=calls") == await found(f"team={firm.ids['team_id']}") == ["three", "two", "one"]
    assert await found("end_user=user%20two") == await found("request_id=two") == ["two"]
    assert await found("model=none") == await found("until=2020-01-01") == []
    assert await found("", firm.secrets["lead"]) == ["three", "two", "one"]
    assert await found("", firm.secrets["lead of another team"]) == []
    first = await done(gateway, "GET", "/requests?limit=2")
    second = await done(gateway, "GET", f"/requests?limit=2&after={first['next']}")
    assert [each["request_id"] for each in first["data"] + second["data"]] == ["three", "two", "one"]
    usage = await done(gateway, "GET", "/usage?by=key")
    assert (usage["total"]["requests"], usage["data"][0]["key"]) == (3, made["id"])


async def test_a_budget_says_what_is_spent_and_leased(gateway: TestGateway) -> None:
    made = await done(
        gateway, "POST", "/keys", {"name": "spends", "monthly_budget_usd": "10", "requests_per_minute": 9}
    )
    (money,) = (await done(gateway, "GET", f"/budgets?scope=key&subject={made['id']}"))["data"]
    (rate,) = (await done(gateway, "GET", "/limits?scope=key&subject=spends"))["data"]
    assert (money["amount_usd"], money["period"], money["hard"]) == ("10", "month", True)
    assert rate["requests_per_minute"] == 9
    status, _, _ = await gateway.chat(authorization=f"Bearer {made['key']}")
    assert status == 200
    await gateway.rows(1)
    report = await done(gateway, "GET", f"/budgets/{money['id']}")
    assert report["resets_at"] is not None
    (subject,) = report["subjects"]
    assert subject.keys() == {
        "subject", "spent_usd", "leased_usd", "reserved_usd", "remaining_usd", "warning", "leases",
    }  # fmt: skip
    assert subject["subject"] == made["id"]


async def test_a_key_and_its_rules_are_made_together_or_not_at_all(gateway: TestGateway, firm: Company) -> None:
    taken = {"name": "x", "hash": "a" * 64, "monthly_budget_usd": "1", "requests_per_minute": 1}
    assert "key" not in await done(gateway, "POST", "/keys", taken)
    before = [
        await firm.tenancy.fetch(f"SELECT COUNT(*) FROM {name}") for name in ("budgets", "rate_limits", "audit_log")
    ]
    again = await ask(gateway, MASTER, "POST", "/keys", taken)
    assert (again.status, [each["field"] for each in again.body["errors"]]) == (409, ["hash"])
    after = [
        await firm.tenancy.fetch(f"SELECT COUNT(*) FROM {name}") for name in ("budgets", "rate_limits", "audit_log")
    ]
    assert [tuple(rows[0]) for rows in before] == [tuple(rows[0]) for rows in after]


async def test_prices_are_set_once_for_a_moment(gateway: TestGateway) -> None:
    price = {"model": "some/model", "input_cost_per_1m_tokens": "1.5", "output_cost_per_1m_tokens": "2"}
    made = await done(gateway, "POST", "/prices", {**price, "valid_from": "2026-01-01T00:00:00Z"})
    assert (made["model"], made["input_cost_per_1m_tokens"]) == ("some/model", "1.5")
    again = await ask(gateway, MASTER, "POST", "/prices", {**price, "valid_from": "2026-01-01T00:00:00Z"})
    assert again.status == 409
    assert made in (await done(gateway, "GET", "/prices"))["data"]
    (entry,) = (await done(gateway, "GET", "/audit?kind=prices"))["data"]
    assert (entry["action"], entry["object_id"], entry["before"], entry["after"]) == ("set", "some/model", None, made)


async def test_prices_may_have_tiers_and_what_is_none_is_told_by_its_place(gateway: TestGateway) -> None:
    price = {"model": "some/model", "input_cost_per_1m_tokens": "1.5", "output_cost_per_1m_tokens": "2"}
    long = {"above_input_tokens": 200_000, "input_cost_per_1m_tokens": "3"}
    flex = {"service_tier": "flex", "output_cost_per_1m_tokens": "0.00000000000000000001"}
    made = await done(gateway, "POST", "/prices", {**price, "tiers": [long, flex]})
    assert made["tiers"] == [flex, long]
    Draft202012Validator((await gateway.get("/openapi.json"))[1]["components"]["schemas"]["Price"]).validate(made)
    assert made in (await done(gateway, "GET", "/prices"))["data"]
    for tiers, field in (
        ([long, {"input_cost_per_1m_tokens": "1"}], "tiers.1"),
        ([{"service_tier": "default", "input_cost_per_1m_tokens": "1"}], "tiers.0"),
        ([{"service_tier": "flex"}], "tiers.0"),
        ([{**flex, "input_cost_per_1m_tokens": "-1"}], "tiers.0.input_cost_per_1m_tokens"),
        ([long, long], "tiers"),
    ):
        refused = await ask(gateway, MASTER, "POST", "/prices", {**price, "tiers": tiers})
        assert (refused.status, [each["field"] for each in refused.body["errors"]]) == (400, [field])


async def test_a_drained_deployment_gets_no_requests_until_it_is_enabled(
    gateway: TestGateway, upstream: Upstream, firm: Company
) -> None:
    secret, _ = await firm.tenancy.key()
    names = [each["name"] for each in (await done(gateway, "GET", "/deployments"))["data"]]
    for name in names:
        assert (await done(gateway, "POST", f"/deployments/{name}/drain"))["drained"] is True
    status, _, _ = await gateway.chat(authorization=f"Bearer {secret}")
    assert (status, upstream.calls) == (503, 0)
    for name in names:
        assert (await done(gateway, "POST", f"/deployments/{name}/enable"))["drained"] is False
    status, _, _ = await gateway.chat(authorization=f"Bearer {secret}")
    assert (status, upstream.calls) == (200, 1)
    assert (await ask(gateway, MASTER, "POST", "/deployments/none/drain")).status == 404
    entries = (await done(gateway, "GET", "/audit?kind=deployments"))["data"]
    assert [(entry["action"], entry["before"], entry["after"]) for entry in entries[-1:]] == [
        ("drain", {"drained": False}, {"drained": True})
    ]


async def test_the_audit_log_of_a_team_has_its_budgets_and_limits(gateway: TestGateway, firm: Company) -> None:
    """Whoever has changed them, also those that are gone; and those of nobody else."""
    made: dict[str, str] = {}
    for scope, who in (("team", "team_id"), ("key", "member id"), ("team", "sibling_id"), ("organisation", "")):
        subject = firm.ids[who or "organisation_id"]
        body = {"scope": scope, "subject": subject}
        made[who] = (await done(gateway, "POST", "/limits", {"requests_per_minute": 1, **body}))["id"]
        made[f"{who} $"] = (await done(gateway, "POST", "/budgets", {"name": "b", "amount_usd": "1", **body}))["id"]
        await done(gateway, "DELETE", f"/budgets/{made[f'{who} $']}")
    told = {
        who: {(entry["action"], entry["object_id"]) for entry in entries}
        for who in ("lead", "head", "head of another", "auditor of the team")
        if (entries := (await done(gateway, "GET", "/audit", by=firm.secrets[who]))["data"]) is not None
    }
    of_team = {("create", made[who]) for who in ("team_id", "member id")} | {
        (action, made[f"{who} $"]) for who in ("team_id", "member id") for action in ("create", "delete")
    }
    assert told["lead"] == told["auditor of the team"] == of_team
    assert {object_id for _, object_id in told["head"]} == set(made.values())
    assert told["head of another"] == set()


async def test_every_change_is_in_the_audit_log(gateway: TestGateway, firm: Company) -> None:
    lead, names = firm.secrets["lead"], await firm.target()
    key = await done(gateway, "POST", "/keys", {"name": "new", "monthly_budget_usd": "1"}, lead)
    await done(gateway, "PATCH", f"/keys/{key['id']}", {"owner": "anna"}, lead)
    rotated = await done(gateway, "POST", f"/keys/{key['id']}/rotate", {"grace_seconds": 60}, lead)
    await done(gateway, "POST", f"/keys/{key['id']}/revoke", by=lead)
    await done(gateway, "DELETE", f"/budgets/{names['budget']}", by=lead)
    entries = (await done(gateway, "GET", "/audit", by=lead))["data"][::-1]
    told = [
        (entry["action"], entry["object_kind"], entry["before"] is None, entry["after"] is None) for entry in entries
    ]
    assert told == [
        ("create", "keys", True, False),
        ("create", "budgets", True, False),
        ("update", "keys", False, False),
        ("rotate", "keys", False, False),
        ("revoke", "keys", False, False),
        ("delete", "budgets", False, True),
    ]
    assert {entry["actor"] for entry in entries} == {f"key:{firm.ids['lead id']} (lead)"}
    assert (entries[2]["before"]["owner"], entries[2]["after"]["owner"]) == (None, "anna")
    assert all(entry["request_id"] for entry in entries)
    hashes = [row[0] for row in await firm.tenancy.fetch("SELECT hash FROM virtual_keys")]
    rows = str([tuple(row) for row in await firm.tenancy.fetch("SELECT * FROM audit_log")])
    assert not [each for each in (*hashes, key["key"], rotated["key"]) if each in rows]
    assert await done(gateway, "GET", f"/audit?object={uuid4()}") == {"data": [], "next": None}
    assert len((await done(gateway, "GET", f"/audit?object={key['id']}&action=rotate"))["data"]) == 1
