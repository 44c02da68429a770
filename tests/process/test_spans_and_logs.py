"""`llmgateway serve` with a collector: log lines lead to the spans, and the last ones are sent when it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx

from tests.process.conftest import serving
from tests.telemetry.collector import CLIENT, SERVER, Collector

QUESTION = {"model": "z-ai/glm-4.6", "messages": [{"role": "user", "content": "Hello"}]}


@contextmanager
def collecting_in_a_thread() -> Iterator[Collector]:
    collector = Collector()

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer = collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_request(self, *_code_and_size: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Take)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_log_lines_lead_to_spans(tmp_path: Path) -> None:
    with collecting_in_a_thread() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "LLMGATEWAY_LOG_FORMAT": "json"}
        with serving(tmp_path, OTEL_SERVICE_NAME="front door", OTEL_BSP_SCHEDULE_DELAY="60000", **settings) as gateway:
            httpx.post(f"{gateway.url}/v1/chat/completions", json=QUESTION, timeout=30).raise_for_status()
            assert collector.spans == []
            assert gateway.stop() == 0
        server, call = sorted(collector.spans, key=lambda each: each.span.start_time_unix_nano)
    assert (server.span.kind, call.span.kind) == (SERVER, CLIENT)
    assert server.resource["service.name"] == "front door"
    assert call.attributes["gen_ai.provider.name"] == "openrouter"
    lines = [json.loads(line) for line in gateway.output if line.startswith("{")]
    (line,) = [each for each in lines if each["event"] == "request"]
    assert (line["trace_id"], line["span_id"]) == (server.trace, server.id)
    assert line["request_id"] == server.attributes["llmgateway.request_id"]
