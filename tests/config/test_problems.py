"""What is wrong with a file is told all at once, with line, path and a suggestion."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.loading import parse_config
from proxy.config.messages import without_values
from proxy.config.problems import ConfigErrors, path_text
from tests.config.documents import EVERYTHING, SMALL, problems

WRONG = """\
providers:
  openrouter:
    kind: openroter
    api_key: sk-123
    headers:
      Authorization: Bearer abc
      X-Title: ${NOPE}
      x-title: again
      Host: here
    timeouts: {connect_seconds: -5, first_byte_seconds: "30", idle: 1}
    retry_budgett: {}
  local:
    kind: openai
    base_url: ftp://x
  bare: {}
models:
  gpt-4o:
    hedge: p96
    stratgy: cost
    deploymens: []
  two:
    strategy: least-buzy
    hedge: {after_seconds: 0}
    deployments:
      - {provider: opnrouter, wieght: 1, rpm: 1.5, prices: {input_usd_per_1m_tokens: x}}
      - {provider: local, model: "*", weight: 0, max_concurrency: no}
      - {provider: local, model: "*", weight: 0}
  zero:
    deployments: [{provider: local, weight: 0}, {provider: local, model: b, weight: 0.0}]
  auto: {deployments: [{provider: local}]}
  none: {deployments: []}
  tags: {deployments: [{provider: local, tags: [a, a]}]}
  twice: {deployments: [{provider: local}]}
  twice: {deployments: [{provider: local}]}
  "a*b*": {deployments: [{provider: local}]}
aliases: {gpt-4: gpt-4oo, x: y, y: z, z: x, two: gpt-4o, self: self}
fallbacks:
  general: {gpt-4o: [gpt-4o, zzz, two, two], gtp-4o: [two], "claude/*": [two]}
  context: {}
routing:
"""

# ruff: noqa: E501
TOLD = """\
gateway.yaml:3: providers.openrouter.kind: must be 'openrouter', 'openai', 'azure', 'mistral-openai', 'anthropic' or 'google', \
not 'openroter'; did you mean 'openrouter'?
gateway.yaml:4: providers.openrouter.api_key: a secret must be a reference to the environment and nothing else, like \
${OPENROUTER_API_KEY}
gateway.yaml:6: providers.openrouter.headers.Authorization: holds a secret, which must come from the environment: ${NAME}
gateway.yaml:7: providers.openrouter.headers.X-Title: the environment variable NOPE is not set
gateway.yaml:8: providers.openrouter.headers.x-title: is given twice; upper and lower case make no difference in headers
gateway.yaml:9: providers.openrouter.headers.Host: is a header that the gateway itself sets
gateway.yaml:10: providers.openrouter.timeouts.connect_seconds: must be greater than 0, not -5
gateway.yaml:10: providers.openrouter.timeouts.first_byte_seconds: must be a number, not text: remove the quotes
gateway.yaml:10: providers.openrouter.timeouts.idle: unknown key; did you mean 'idle_seconds'?
gateway.yaml:11: providers.openrouter.retry_budgett: unknown key; did you mean 'retry_budget'?
gateway.yaml:14: providers.local.base_url: must be a URL that begins with http:// or https:// and a host, with a port \
from 1 to 65535 if any, without user, query or fragment
gateway.yaml:15: providers.bare.base_url: is required for the kind openai, like https://api.openai.com/v1
gateway.yaml:18: models.gpt-4o.hedge: must be p95, or a mapping with after_seconds
gateway.yaml:19: models.gpt-4o.stratgy: unknown key; did you mean 'strategy'?
gateway.yaml:20: models.gpt-4o.deploymens: unknown key; did you mean 'deployments'?
gateway.yaml:22: models.two.strategy: must be 'weighted', 'priority', 'least-busy', 'latency', 'cost' or 'usage', not \
'least-buzy'; did you mean 'least-busy'?
gateway.yaml:23: models.two.hedge.after_seconds: must be greater than 0, not 0
gateway.yaml:25: models.two.deployments[0].provider: there is no provider 'opnrouter'; did you mean 'openrouter'?
gateway.yaml:25: models.two.deployments[0].wieght: unknown key; did you mean 'weight'?
gateway.yaml:25: models.two.deployments[0].rpm: must be a whole number
gateway.yaml:25: models.two.deployments[0].prices.input_usd_per_1m_tokens: must be a number, not text
gateway.yaml:25: models.two.deployments[0].prices.output_usd_per_1m_tokens: is required
gateway.yaml:26: models.two.deployments[1].model: '*' stands for what the public name's '*' matched, and 'two' has none
gateway.yaml:26: models.two.deployments[1].max_concurrency: must be a number, not text
gateway.yaml:27: models.two.deployments[2]: is called 'local/*' like models.two.deployments[1]: give one of them a `name`
gateway.yaml:27: models.two.deployments[2].model: '*' stands for what the public name's '*' matched, and 'two' has none
gateway.yaml:29: models.zero.deployments: at least one weight must be greater than 0
gateway.yaml:30: models.auto: the name 'auto' is reserved
gateway.yaml:31: models.none.deployments: needs at least one entry
gateway.yaml:32: models.tags.deployments[0].tags: 'a' is given twice
gateway.yaml:34: models.twice: is given twice, first in line 33
gateway.yaml:35: models."a*b*": must be a model name, with at most one '*', without braces or control characters
gateway.yaml:36: aliases.gpt-4: there is no model 'gpt-4oo'; did you mean 'gpt-4o'?
gateway.yaml:36: aliases.self: leads in a circle: self -> self
gateway.yaml:36: aliases.two: is a model, too: remove one of them
gateway.yaml:36: aliases.x: leads in a circle: x -> y -> z -> x
gateway.yaml:38: fallbacks.general."claude/*": there is no model 'claude/*'
gateway.yaml:38: fallbacks.general.gpt-4o: 'two' is given twice
gateway.yaml:38: fallbacks.general.gpt-4o[0]: is the model itself
gateway.yaml:38: fallbacks.general.gpt-4o[1]: there is no model 'zzz'
gateway.yaml:38: fallbacks.general.gtp-4o: there is no model 'gtp-4o'; did you mean 'gpt-4o'?
gateway.yaml:39: fallbacks.context: unknown key; did you mean 'context_window'?
gateway.yaml:40: routing: is empty: give it a value or remove the key
"""


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_lines() -> None:
    told = problems(WRONG)
    assert set(told) == set(TOLD.splitlines())
    assert len(told) == len(set(told))
    lines = [int(line.split(":")[1]) for line in told]
    assert lines == sorted(lines)


def test_no_secret_is_repeated() -> None:
    assert not [line for line in problems(WRONG) if "sk-123" in line or "abc" in line]
    broken = EVERYTHING.replace("max_concurrency: ${LIMIT}", "max_concurrency: ${KEY}").replace(
        "kind: openrouter", "kind: ${TITLE}"
    )
    broken = broken.replace("provider: local", "provider: ${KEY}").replace("gpt-4: gpt-4o", 'gpt-4: "${KEY}"')
    told = "\n".join(problems(broken))
    assert "what ${TITLE} stands for" in told
    assert "sk-secret" not in told


SECRET = "sk-plain-SECRET"


def plain_lines(text: str, **environment: str) -> list[str]:
    """What /health and the log have."""
    with pytest.raises(ConfigErrors) as refused:
        parse_config(text, "gateway.yaml", environment)
    return list(without_values(refused.value))


def test_what_others_read_has_places_known_keys_and_what_is_wrong() -> None:
    told = plain_lines(WRONG)
    assert {line.split(": ")[0] for line in told} == {line.split(": ")[0] for line in problems(WRONG)}
    assert "gateway.yaml:3: providers.….kind: must be 'openrouter', 'openai', 'azure'" in told[0]
    assert "openroter" not in "".join(told)
    assert "gateway.yaml:11: providers.….…: unknown key" in told
    assert "gateway.yaml:23: models.….hedge.after_seconds: must be greater than 0" in told
    assert "gateway.yaml:25: models.….deployments[0].provider: there is no such provider" in told
    assert "gateway.yaml:36: aliases.…: leads in a circle" in told
    assert not [line for line in told if line.endswith(": is not valid")]


@pytest.mark.parametrize("key", ["", f"{SECRET}\n{SECRET}", f"{SECRET}\x01"])
def test_what_others_read_of_a_key_that_cannot_be_used_is_not_that_its_reference_is_wrong(key: str) -> None:
    """As a file with two lines makes it, while the gateway runs."""
    (told,) = plain_lines(SMALL.replace("{base", '{api_key: "${KEY}", base'), KEY=key)
    assert told == (
        "gateway.yaml:2: providers.….api_key: the environment variable that it refers to, or the file that stands for "
        "it, does not hold one line of text"
    )


@pytest.mark.parametrize(
    "text",
    [
        f"providers: {{fake: {SECRET}}}",
        f"providers: {{{SECRET}: {{}}}}",
        f"providers: {{fake: {{{SECRET}: 1}}}}",
        f"{SECRET}: 1",
        SECRET,
        f"- {SECRET}",
        f"providers: {{fake: {{kind: {SECRET}, base_url: {SECRET}, api_key: {SECRET}, headers: {{{SECRET}: a}}}}}}",
        f"providers: {{fake: {{headers: {{Authorization: {SECRET}, X: '${{{SECRET.replace('-', '_')}}}'}}}}}}",
        f"providers: {{fake: {{max_queue: {SECRET}, timeouts: {SECRET}, timeouts: {SECRET}, done_marker: {SECRET}}}}}",
        f"models: {{a: {{deployments: [{{provider: {SECRET}, tags: [{SECRET}, {SECRET}], name: {SECRET}}}]}}}}",
        f"models: {{{SECRET}: {{deployments: [{{provider: a, model: x}}, {{provider: a, model: x}}]}}}}",
        f"aliases: {{a: {SECRET}, {SECRET}: a, b: b{SECRET}}}",
        f"model_groups: {{a: [{SECRET}]}}\nfallbacks: {{general: {{{SECRET}: [{SECRET}]}}}}",
        f"routing: !{SECRET} 5",
        f"routing: *{SECRET}",
        f"routing: {{{SECRET}: [",
        f'routing: "{SECRET}',
        f"routing: %{SECRET}",
    ],
)
def test_what_others_read_has_nothing_that_the_file_says(text: str) -> None:
    told = "\n".join(plain_lines(text))
    assert told
    assert "SECRET" not in told


def _tiers(tiers: str) -> str:
    """A deployment with those price tiers."""
    prices = f"{{input_usd_per_1m_tokens: 1, output_usd_per_1m_tokens: 2, tiers: [{tiers}]}}"
    return f"{{provider: local, prices: {prices}}}"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("base_url: http", 'api_key: "${MISSING}", base_url: http', "the environment variable MISSING is not set"),
        ("base_url: http", 'api_key: "${EMPTY}", base_url: http', "the environment variable EMPTY is empty"),
        ("base_url: http", 'api_key: "${KEY:-sk-1}", base_url: http', "a secret must be a reference"),
        ("base_url: http", 'api_key: "Bearer ${KEY}", base_url: http', "a secret must be a reference"),
        ("base_url: http", "api_key: 5, base_url: http", "a secret must be a reference"),
        ("base_url: http", 'headers: {X: "${bad name}"}, base_url: http', "`${` must begin a reference"),
        ("base_url: http", 'headers: {"X Y": a}, base_url: http', "must be the name of an HTTP header"),
        ("base_url: http", 'headers: {X: "a\\r\\nY: b"}, base_url: http', "must be text without control characters"),
        ("base_url: http", "max_concurrency: 0, base_url: http", "must be at least 1, not 0"),
        ("base_url: http", "done_marker: yes, base_url: http", "must be true or false, not 'yes'"),
        ("base_url: http", "max_queue: true, base_url: http", "must be a number, not true"),
        ("base_url: http", "retry_budget: {percent: 101}, base_url: http", "must be at most 100, not 101"),
        ("local: {", "my/local: {base_url: http://x}\n  local: {", "must be letters, digits"),
        ("deployments: [{provider: local}]", "deployments: {provider: local}", "must be a list, not a mapping"),
        (
            "deployments: [{provider: local}]",
            "deployments: [local]",
            "must be a mapping of keys to values, not 'local'",
        ),
        ("{provider: local}", "{provider: 5}", "must be text, not 5: put it in quotes"),
        ("{provider: local}", "{provider: local, tags: eu}", "must be a list, not 'eu'"),
        ("{provider: local}", "{provider: local, capabilities: [visoin]}", "did you mean 'vision'?"),
        ("{provider: local}", "{provider: local, weight: .nan}", "must be"),
        ("{provider: local}", "{provider: local, weight: 1e999}", "must be"),
        ("{provider: local}", f"{{provider: local, weight: {'9' * 399}}}", "must be a smaller number"),
        ("{provider: local}", "{provider: local, rpm: .inf}", "must be a whole number"),
        ("{provider: local}", "{provider: local, rpm: 1e999999}", "must be a whole number"),
        (
            "{provider: local}",
            "{provider: local, prices: {input_usd_per_1m_tokens: -1, output_usd_per_1m_tokens: 1}}",
            "the price cannot be negative",
        ),
        (
            "{provider: local}",
            _tiers("{input_usd_per_1m_tokens: 1}"),
            "needs above_input_tokens, service_tier, or both",
        ),
        ("{provider: local}", _tiers("{above_input_tokens: 5}"), "needs a price, like input_usd_per_1m_tokens"),
        (
            "{provider: local}",
            _tiers("{service_tier: flex, request_fee_usd: 1}, {service_tier: flex, request_fee_usd: 2}"),
            "tiers[1]: is for the same requests as one before it",
        ),
        (
            "{provider: local}",
            _tiers(
                "{above_input_tokens: 200000, request_fee_usd: 1}, {above_input_tokens: 2.0e+5, request_fee_usd: 2}"
            ),
            "tiers[1]: is for the same requests as one before it",
        ),
        (
            "{provider: local}",
            _tiers(
                "{above_input_tokens: 5, request_fee_usd: 1}, {above_input_tokens: '${N:-5.0}', request_fee_usd: 2}"
            ),
            "tiers[1]: is for the same requests as one before it",
        ),
        ("{provider: local}", _tiers("{above_input_tokens: 0, request_fee_usd: 1}"), "must be at least 1, not 0"),
        ("{provider: local}", _tiers("{service_tier: default, request_fee_usd: 1}"), "like flex or priority"),
        ("{provider: local}", _tiers("{service_tier: fast, request_fee_usd: 1}"), "priority (not fast)"),
        ("{provider: local}", _tiers("{service_tier: Flex, request_fee_usd: 1}"), "in lower case"),
        ("{provider: local}", _tiers("{service_tier: flex, requests_fee_usd: 1}"), "did you mean"),
        (
            "{provider: local}",
            _tiers(", ".join(f"{{above_input_tokens: {n}, request_fee_usd: 1}}" for n in range(1, 34))),
            "tiers: must have at most 32 entries",
        ),
        ("models:", "aliases: {auto: one}\nmodels:", "the name 'auto' is reserved"),
        ("models:", "model_groups: {cheap: [won]}\nmodels:", "there is no model 'won'; did you mean 'one'?"),
        ("models:", 'model_groups: {cheap: ["two-*"]}\nmodels:', "there is no model 'two-*'"),
        ("models:", "model_groups: {cheap: []}\nmodels:", "needs at least one entry"),
        ("models:", "model_groups: {cheap: [one, one]}\nmodels:", "'one' is given twice"),
        ("models:", "model_groups: {a b: [one]}\nmodels:", "must be letters, digits"),
        ("models:", "aliases: {a: auto}\nmodels:", "the name 'auto' is reserved"),
        ("models:", "fallbacks: {general: {one: [auto]}}\nmodels:", "the name 'auto' is reserved"),
        ("models:", "aliases: {a: one}\nfallbacks: {general: {a: [one]}}\nmodels:", "is the model itself"),
        ("models:", "routing: {max_attempts: 0}\nmodels:", "must be at least 1, not 0"),
        ("models:", "model_list: []\nmodels:", "`llmgateway import-litellm` converts it"),
        ("  one:\n    deployments: [{provider: local}]\n", "  {}", "needs at least one entry"),
    ],
)
def test_one_mistake_is_one_line(old: str, new: str, told: str) -> None:
    assert old in SMALL
    (line,) = problems(SMALL.replace(old, new, 1))
    assert told in line


@pytest.mark.parametrize(
    "url",
    [
        *("http://h:99999/v1", "http://h:0/v1", "http://h:port", "http://:80/v1", "http://[::1/v1", "http://[1:2]:80"),
        *("http://h..example/v1", f"http://{'h' * 64}.example", "http://h\\v1", "http://h\u2100/v1"),
    ],
)
def test_a_url_that_no_client_can_be_made_of_is_refused(url: str) -> None:
    """A start would end in a traceback, or every request in a 500."""
    (line,) = problems(SMALL.replace("http://127.0.0.1:8000/v1", f"'{url}'"))
    assert "providers.local.base_url: must be a URL" in line


@pytest.mark.parametrize(
    "url",
    [
        *("http://h", "https://h.example.:65535", "http://[::1]:8000/v1", "http://bücher.example/"),
        *("http://h:", "http://h:/v1", "http://h:08080/v1", "http://[fe80::1%25eth0]:80/v1", "http://[fe80::1%eth0]"),
    ],
)
def test_a_url_with_a_host_and_perhaps_a_port_is_taken(url: str) -> None:
    assert problems(SMALL.replace("http://127.0.0.1:8000/v1", f"'{url}'")) == []


def test_deployments_of_one_name_in_two_models_must_be_the_same() -> None:
    same = SMALL + "  two:\n    deployments: [{provider: local, model: one, weight: 5, rpm: 9}]\n"
    assert problems(same) == []
    other = SMALL + "  two:\n    deployments: [{provider: local, model: one, max_concurrency: 5}]\n"
    assert problems(other) == [
        "gateway.yaml:7: models.two.deployments[0]: is called 'local/one' like models.one.deployments[0], and is not the same: give one of them a `name`"
    ]


def test_fallbacks_may_go_round() -> None:
    text = SMALL + "  two:\n    deployments: [{provider: local}]\nfallbacks: {general: {one: [two], two: [one]}}\n"
    assert problems(text) == []


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("openrouter/*", True),
        ("openrouter/z-*", True),
        ("*", True),
        ("gpt-*", True),
        ("g*-5", False),
        ("claude*", False),
    ],
)
def test_fallbacks_of_a_pattern_need_a_model_that_fits(key: str, known: bool) -> None:
    told = problems(EVERYTHING.replace('"openrouter/*": [gpt-4o]', f'"{key}": [openrouter/y]'))
    assert bool(told) is not known


def test_a_wildcard_never_stands_for_nothing_or_for_auto() -> None:
    assert problems(EVERYTHING.replace("openrouter/long", "openrouter/"))
    assert problems(EVERYTHING.replace('"openrouter/*":\n', '"*":\n').replace("openrouter/long", "auto"))


def test_a_value_that_could_not_be_read_is_told_once() -> None:
    assert problems(SMALL.replace("http://127.0.0.1:8000/v1", "!env URL")) == [
        "gateway.yaml:2: providers.local.base_url: the tag !env is not known here"
    ]


def test_an_inherited_mistake_is_told_where_it_is() -> None:
    assert problems("routing: {strategy: fastest}\n" + SMALL)[0].startswith("gateway.yaml:1: routing.strategy: ")
    assert len(problems("routing: {strategy: fastest}\n" + SMALL)) == 1
    assert len(problems(SMALL.replace("base_url", "timeouts: {idle_seconds: 0}, base_url"))) == 1


@pytest.mark.parametrize("text", ["[]", "5", "providers", "- a\n- b"])
def test_a_file_that_is_no_mapping_is_said_so(text: str) -> None:
    (line,) = problems(text)
    assert line.startswith("gateway.yaml:1: must be a mapping")


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, len(EVERYTHING)),
    st.integers(0, 30),
    st.text(" \n\t:-[]{}*&!|>'\"#$%@`,?\\~x0é\x00\ud800\U0001f600", max_size=6),
)
def test_no_text_is_too_odd_to_be_read_or_refused(start: int, length: int, inserted: str) -> None:
    for line in problems(EVERYTHING[:start] + inserted + EVERYTHING[start + length :]):
        assert line


def test_paths_are_written_like_code() -> None:
    assert path_text(("models", "gpt-4.1", "deployments", 0, "x")) == 'models."gpt-4.1".deployments[0].x'
