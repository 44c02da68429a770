"""`python -m proxy` is `llmgateway`."""

from proxy.cli import main

main()
