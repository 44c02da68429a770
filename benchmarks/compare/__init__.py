"""The gateway beside others: CPU of a request, a stream and a row, added latency, start and memory, in one paired run.

python -m benchmarks.compare --targets aiohttp-bare,aiohttp-pglog,llmgateway --rounds 5 --seconds 5 --json FILE

All targets are up at once and take turns in every round, so that whatever else the machine does hits all of them.
docs/benchmarks.md has the method, what limits each figure, and how to install the other gateways.

Claim: README, Benchmarks: what a request costs beside bare relays and other gateways.
Short: --quick
"""
