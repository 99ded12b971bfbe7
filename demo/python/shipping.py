"""The cost of sending parcels, over HTTP/1."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BASE = float(os.environ.get("SHIPPING_BASE", "4.9"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/ready":
            return self.reply(200, "ready")
        self.reply(404, {"error": "not found"})

    def do_POST(self):
        data = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        try:
            pieces = int(json.loads(data)["pieces"])
        except (ValueError, KeyError, TypeError):
            return self.reply(400, {"error": "pieces must be a number"})
        if self.path != "/quote":
            return self.reply(404, {"error": "not found"})
        self.reply(200, {"cost": round(BASE + 0.5 * pieces, 2)})

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


def main():
    server = Server(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler)
    # shutdown waits for the loop, which runs in this thread
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("shipping listening on 0.0.0.0:%d" % server.server_address[1], flush=True)
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
