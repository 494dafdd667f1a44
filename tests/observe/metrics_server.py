"""A real server of /metrics, whose counter and gauge move with every answer; tests wait for answers, not for time."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STEP = 1000


class MetricsServer:
    """Listens on a port of its own on 127.0.0.1 until closed."""

    def __init__(self, more: str = "") -> None:
        self.answers = 0
        self.broken = False
        self._answered = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with outer._answered:
                    outer.answers += 1
                    body = outer.text(more).encode()
                    self.send_response(500 if outer.broken else 200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    outer._answered.notify_all()

            def log_message(self, *_: object) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/metrics"

    def text(self, more: str) -> str:
        return ("# TYPE vllm:prompt_tokens counter\n"
                f'vllm:prompt_tokens_total{{engine="0"}} {STEP * self.answers}.0\n'
                "# TYPE vllm:num_requests_running gauge\n"
                f'vllm:num_requests_running{{engine="0"}} {self.answers % 3}.0\n{more}')

    def wait_for(self, answers: int, deadline_s: float = 30) -> None:
        with self._answered:
            assert self._answered.wait_for(lambda: self.answers >= answers, deadline_s)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
