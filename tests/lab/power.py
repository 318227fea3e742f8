"""The lab's machine room: what switches a machine off and on when the cluster's master asks for it over the network."""

import http.server
import threading

from tests.lab.harness import lab as the_lab
from tests.lab.harness import settings

ASK = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], data=b'', timeout=60)"


class Switch:
    """A switch for some machines. ``asked`` is what it was asked for: pairs of ``on`` or ``off`` and a name."""

    def __init__(self, machines):
        self.asked = []
        switch = self

        class Panel(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                _, what, name = self.path.split("/")
                switch.asked.append((what, name))
                if name not in machines:
                    self.send_error(403)
                    return
                if what == "on":
                    the_lab.boot(name)
                else:
                    the_lab.node(name).stop()
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer((str(settings.GATEWAY), 0), Panel)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def command(self, what):
        """Return the command line that the master switches ``{node}`` with."""
        return f'/usr/bin/python3 -c "{ASK}" http://{settings.GATEWAY}:{self.server.server_port}/{what}/{{node}}'

    def close(self):
        """Be no more."""
        self.server.shutdown()
        self.server.server_close()
