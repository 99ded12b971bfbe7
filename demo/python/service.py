"""What the shop's services in Python share: JSON over HTTP/1."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers with JSON. A service adds do_GET and the like."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def reply(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def serve(name, handler):
    """Serves on $PORT until SIGTERM."""
    server = Server(("0.0.0.0", int(os.environ.get("PORT", "8080"))), handler)
    # shutdown waits for the loop, which runs in this thread
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("%s listening on 0.0.0.0:%d" % (name, server.server_address[1]), flush=True)
    server.serve_forever(poll_interval=0.1)
