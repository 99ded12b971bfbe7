"""The cost of sending parcels, over HTTP/1."""

import json
import os
import sys

sys.dont_write_bytecode = True  # the shop leaves its directory as it is

import service

BASE = float(os.environ.get("SHIPPING_BASE", "4.9"))


class Handler(service.Handler):
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


if __name__ == "__main__":
    service.serve("shipping", Handler)
