"""A mirror of the test's own on loopback: it may tamper with a file, or die in the middle of one."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager


@contextmanager
def mirror(files, *, broken=()):
    """Serve ``files`` (path -> bytes); of the ``broken`` ones only the first half comes. Gives the URL below it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            whole = self.path not in broken
            self.wfile.write(content if whole else content[:len(content) // 2])
            self.close_connection = True

        def log_message(self, *_):
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
