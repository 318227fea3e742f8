"""The lab's machine room: what switches a machine off and on when the cluster's master asks for it over the network."""

import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.lab.harness import lab as the_lab
from tests.lab.harness import settings

ASK = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], data=b'', timeout=60)"


class Switch:
    """A switch for some machines. ``asked`` is what it was asked for: pairs of ``on`` or ``off`` and a name.

    As a machine's own controller does, it answers at once and switches then.
    """

    def __init__(self, machines):
        self.asked, self.hand = [], ThreadPoolExecutor(max_workers=1)
        switch = self

        class Panel(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                _, what, name = self.path.split("/")
                switch.asked.append((what, name))
                if name not in machines:
                    self.send_error(403)
                    return
                switch.hand.submit(the_lab.boot if what == "on" else turn_off, name)
                self.send_response(202)
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer((str(settings.GATEWAY), 0), Panel)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def command(self, what):
        """Return the command line that the master switches ``{node}`` with."""
        return f'/usr/bin/python3 -c "{ASK}" http://{settings.GATEWAY}:{self.server.server_port}/{what}/{{node}}'

    def close(self):
        """Be no more, once all is switched."""
        self.server.shutdown()
        self.server.server_close()
        self.hand.shutdown()


def turn_off(name):
    the_lab.node(name).stop()
