"""Stars of each product, over HTTP/1."""

import sys

sys.dont_write_bytecode = True  # the shop leaves its directory as it is

import service


class Handler(service.Handler):
    def do_GET(self):
        if self.path == "/ready":
            return self.reply(200, "ready")
        base, _, product = self.path.rpartition("/")
        if base != "/ratings" or not product.isdigit():
            return self.reply(404, {"error": "no such product"})
        self.reply(200, {"product": product, "stars": 3 + int(product) % 3 * 0.5})


if __name__ == "__main__":
    service.serve("ratings", Handler)
