#!/usr/bin/env python3
"""A web server on several addresses that keeps its connections open, for try.ps1 to connect to.

usage: server.py PORT ADDRESS...
"""
import http.server
import ipaddress
import socket
import sys
import threading


class Answer(http.server.BaseHTTPRequestHandler):
    # With HTTP/1.1 a connection stays open for the next request.
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        text = f"hello from {self.server.server_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def server(address, port):
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    kind = type("Server", (http.server.ThreadingHTTPServer,), {"address_family": family, "daemon_threads": True})
    return kind((address, port), Answer)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__.strip())
    servers = [server(address, int(sys.argv[1])) for address in sys.argv[2:]]
    for one in servers:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


main()
