"""Providers that speak a dialect of their own, through Semantic Kernel's connectors for them.

A request's JSON is read into a ChatHistory and the connector's settings (`members`, `messages`, `parameters`, and a
module for each dialect), the connector asks its provider over our own HTTP session (`transport`), and its contents are
written as OpenAI would answer (`answers`, `stream`). `service` runs it all under retries and the breaker, as the wire
path does.

What a dialect cannot carry is refused with InvalidRequest, by the field's name. Only these are taken and let go,
because no answer depends on them: `stream_options` (obeyed as far as usage goes), `prompt_cache_key`,
`prompt_cache_retention`, `session_id`, `metadata`, `models` (the gateway's own), an image's `detail`, the `reasoning`
text of earlier answers where its signed form is beside it, what OpenAI's SDK notes on answers that it has parsed, and
values that ask for nothing (null, `n: 1`, …).
"""
