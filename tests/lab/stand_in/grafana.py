#!/opt/qhub/salt/bin/python
"""A stand-in for Grafana, for the tests' lab only: it draws nothing, and it proves nothing of Grafana itself.

    grafana server --config=FILE --homepath=DIRECTORY

It reads what Grafana reads (grafana.ini with its `$__file{...}`, provisioning, dashboards, bundled plugins), keeps
people in PostgreSQL, signs them in and out by OAuth, gives roles by the JMESPath of the configuration, and answers at
the addresses that the cluster asks Grafana at. So everything around Grafana is tested: archive, unit and sandbox,
secrets, database, routes, sign-in, roles, sign-out, metrics, rotation, change of version.
"""

import base64
import configparser
import hashlib
import html
import http.cookies
import http.server
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import jmespath
import yaml

TIMEOUT = 20  # seconds for an answer of another service
ROLES = ("Viewer", "Editor", "Admin")
PROVISIONED = ("access-control", "alerting", "dashboards", "datasources", "notifiers", "plugins")
TABLES = """
CREATE TABLE IF NOT EXISTS migration_log (version text PRIMARY KEY, at timestamptz DEFAULT now());
CREATE TABLE IF NOT EXISTS "user"
  (login text PRIMARY KEY, email text UNIQUE NOT NULL, role text NOT NULL, password text);
INSERT INTO migration_log VALUES (:'version') ON CONFLICT DO NOTHING;
INSERT INTO "user" VALUES (:'admin', 'admin@localhost', 'Admin', :'password') ON CONFLICT DO NOTHING;
"""
PERSON = """
INSERT INTO "user" VALUES (:'login', :'email', :'role')
ON CONFLICT (login) DO UPDATE SET email = excluded.email, role = excluded.role;
"""


class Refused(Exception):
    """Somebody is not let in; the message says why, in Grafana's words where it has any."""


def log(level, message):
    print(f'logger=stand-in level={level} msg="{message}"', file=sys.stderr, flush=True)


def settings(path):
    """Return ``{section: {key: value}}`` of an INI file; ``$__file{PATH}`` is the text of that file."""
    parser = configparser.ConfigParser(interpolation=None, delimiters="=")
    parser.read_string(Path(path).read_text())

    def value(text):
        return re.sub(r"\$__file\{(.*?)\}", lambda found: Path(found[1]).read_text().strip(), text)

    return {section: {key: value(text) for key, text in parser[section].items()} for section in parser.sections()}


class Grafana:
    """The configuration, and the sessions of people who are signed in."""

    def __init__(self, config, home):
        self.config = config
        self.version = (home / "VERSION").read_text().strip()
        self.oauth = config["auth.generic_oauth"]
        self.root = config["server"]["root_url"]
        self.sessions, self.started = {}, {}
        (home / "public/index.html").read_text()
        for name in ("data", "logs"):
            Path(config["paths"][name]).mkdir(parents=True, exist_ok=True)
        disabled = config["plugins"].get("disable_plugins", "").split(",")
        manifests = Path(config["paths"]["bundled_plugins"]).glob("*/plugin.json")
        self.plugins = sorted({json.loads(path.read_text())["id"] for path in manifests} - set(disabled))
        self.provision(Path(config["paths"]["provisioning"]))
        self.sql(
            TABLES,
            version=self.version,
            admin=config["security"]["admin_user"],
            password=self.sealed(config["security"]["admin_password"]),
        )

    def provision(self, directory):
        found = {name: [] for name in PROVISIONED}
        for name, entries in found.items():
            if not (directory / name).is_dir():
                log("error", f"can't read {name} provisioning files from directory {directory / name}")
            entries += [yaml.safe_load(path.read_text()) for path in sorted((directory / name).glob("*.yaml"))]
        self.sources = {each["uid"]: each for file in found["datasources"] for each in file["datasources"]}
        self.providers = [each for file in found["dashboards"] for each in file["providers"]]
        self.home = json.loads(Path(self.config["dashboards"]["default_home_dashboard_path"]).read_text())["uid"]

    def dashboards(self):
        """Return ``{uid: title}``; a file that cannot be read is a line in the log."""
        found = {}
        for provider in self.providers:
            for path in sorted(Path(provider["options"]["path"]).glob("*.json")):
                try:
                    dashboard = json.loads(path.read_text())
                    found[dashboard["uid"]] = dashboard["title"]
                except OSError as error:
                    log("error", f"failed to load dashboard from {path}: {error.strerror}")
        return found

    def sealed(self, password):
        key = self.config["security"]["secret_key"].encode()
        return hashlib.pbkdf2_hmac("sha256", password.encode(), key, 10_000).hex()

    def sql(self, statements, **values):
        """Run SQL as the unit's user, by the socket; return the output. ``:'name'`` is a value."""
        database = self.config["database"]
        host, _, port = database["host"].rpartition(":")
        psql = str(max(Path("/usr/lib/postgresql").glob("*/bin/psql")))
        words = [psql, "-XqAt1", f"--host={host}", f"--port={port}", f"--username={database['user']}"]
        words += [f"--set={name}={value}" for name, value in {"ON_ERROR_STOP": 1, **values}.items()]
        done = subprocess.run(
            [*words, database["name"]], input=statements, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        if done.returncode:
            raise Refused(f"database: {done.stderr.strip()}")
        return done.stdout.strip()

    # -- signing in -----------------------------------------------------------------------------

    def begin(self):
        """Return ``(state, address)``: where a browser that signs in is sent, which gets the state as a cookie."""
        state, verifier = secrets.token_urlsafe(16), secrets.token_urlsafe(48)
        self.started[state] = verifier
        digest = hashlib.sha256(verifier.encode()).digest()
        words = {
            "client_id": self.oauth["client_id"],
            "redirect_uri": f"{self.root}login/generic_oauth",
            "response_type": "code",
            "scope": self.oauth["scopes"],
            "state": state,
        }
        if self.oauth["use_pkce"] == "true":
            challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            words |= {"code_challenge": challenge, "code_challenge_method": "S256"}
        return state, f"{self.oauth['auth_url']}?{urllib.parse.urlencode(words)}"

    def finish(self, query, state):
        """Return the token of a new session of the person whom a code is about."""
        if not state:
            raise Refused("missing state cookie")
        if query.get("state") != state or state not in self.started:
            raise Refused("login state is not the one that was saved")
        if "code" not in query:
            raise Refused(query.get("error", "no code"))
        form = {
            "grant_type": "authorization_code",
            "code": query["code"],
            "redirect_uri": f"{self.root}login/generic_oauth",
            "client_id": self.oauth["client_id"],
            "client_secret": self.oauth["client_secret"],
            "code_verifier": self.started.pop(state),
        }
        token = fetch(self.oauth["token_url"], urllib.parse.urlencode(form).encode())
        claims = fetch(self.oauth["api_url"], token=token["access_token"])
        person = self.person(claims)
        self.sql(PERSON, **person)
        ends = time.time() + token["expires_in"]
        return self.session({**person, "id_token": token.get("id_token"), "ends": ends})

    def person(self, claims):
        """Return ``{"login", "email", "role"}`` of somebody; the claim ``email`` counts before the path."""
        role = jmespath.search(self.oauth["role_attribute_path"], claims)
        if role not in ROLES:
            if self.oauth["role_attribute_strict"] == "true":
                raise Refused("role_attribute_strict: no role")
            role = "Viewer"
        return {
            "login": jmespath.search(self.oauth["login_attribute_path"], claims),
            "email": claims.get("email") or jmespath.search(self.oauth["email_attribute_path"], claims),
            "role": role,
        }

    def break_glass(self, form):
        """Return the token of a new session of the administrator who signs in with a password."""
        kept = self.sql("""SELECT password, role FROM "user" WHERE login = :'login'""", login=form.get("user", ""))
        password, _, role = kept.partition("|")
        if not password or not secrets.compare_digest(password, self.sealed(form.get("password", ""))):
            raise Refused("Invalid username or password")
        return self.session({"login": form["user"], "email": "", "role": role, "id_token": None, "ends": 0})

    def session(self, person):
        token = secrets.token_urlsafe(24)
        self.sessions[token] = person
        return token

    def sign_out(self, token):
        """Return where a browser that signs out is sent; the hint is there while the token is valid."""
        person = self.sessions.pop(token, None)
        address = self.oauth["signout_redirect_url"]
        if person and person["id_token"] and time.time() < person["ends"]:
            address += "&" + urllib.parse.urlencode({"id_token_hint": person["id_token"]})
        return address

    def metrics(self):
        lines = [f'grafana_build_info{{version="{self.version}",edition="stand-in"}} 1']
        lines += [f'grafana_plugin_build_info{{plugin_id="{name}",version="0"}} 1' for name in self.plugins]
        return "\n".join([*lines, ""])


def fetch(url, body=None, token=None):
    """Return the JSON at an address."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        request = urllib.request.Request(url, body, headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            return json.load(answer)
    except (OSError, ValueError) as error:
        text = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
        raise Refused(f"{url}: {error} {text}") from error


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a browser."""

    grafana: Grafana

    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        prefix = urllib.parse.urlsplit(self.grafana.root).path
        self.cookies = http.cookies.SimpleCookie(self.headers.get("Cookie", ""))
        if not parts.path.startswith(prefix):
            self.answer(301, location=self.grafana.root)
            return
        path = parts.path.removeprefix(prefix)
        if path == "metrics":
            self.answer(200, self.grafana.metrics(), kind="text/plain")
        elif path == "api/health":
            self.json(
                {
                    "database": "ok" if self.grafana.sql("SELECT 1") == "1" else "failing",
                    "version": self.grafana.version,
                }
            )
        elif path == "login":
            self.login(query)
        elif path == "login/generic_oauth":
            self.oauth(query)
        elif path == "logout":
            self.answer(
                302, location=self.grafana.sign_out(self.cookie("grafana_session")), cookies={"grafana_session": ""}
            )
        elif (person := self.grafana.sessions.get(self.cookie("grafana_session"))) is None:
            self.answer(401, "Unauthorized") if path.startswith("api/") else self.answer(302, location=f"{prefix}login")
        else:
            self.page(path, person)

    def do_POST(self):
        self.cookies = http.cookies.SimpleCookie()
        if urllib.parse.urlsplit(self.path).path != f"{urllib.parse.urlsplit(self.grafana.root).path}login":
            self.answer(404, "Not found")
            return
        try:
            token = self.grafana.break_glass(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.json({"message": "Logged in"}, cookies={"grafana_session": token})
        except Refused as error:
            self.answer(401, str(error))

    def login(self, query):
        if "disableAutoLogin" in query or self.cookie("login_error"):
            text = self.cookie("login_error") or "Sign in with a password"
            self.answer(200, document("Sign in", text), cookies={"login_error": ""})
        else:
            self.answer(302, location=f"{self.grafana.root}login/generic_oauth")

    def oauth(self, query):
        if not {"code", "error"} & set(query):
            state, address = self.grafana.begin()
            self.answer(302, location=address, cookies={"oauth_state": state})
            return
        try:
            token = self.grafana.finish(query, self.cookie("oauth_state"))
            self.answer(302, location=self.grafana.root, cookies={"oauth_state": "", "grafana_session": token})
        except Refused as error:
            log("error", str(error))
            cookies = {"oauth_state": "", "login_error": urllib.parse.quote(str(error).splitlines()[0])}
            self.answer(302, location=f"{self.grafana.root}login", cookies=cookies)

    def page(self, path, person):
        dashboards = self.grafana.dashboards()
        if path == "api/user":
            self.json({name: person[name] for name in ("login", "email", "role")})
        elif path == "api/search":
            self.json([{"uid": uid, "title": title} for uid, title in dashboards.items()])
        elif found := re.fullmatch(r"api/datasources/uid/(\w+)/health", path):
            source = self.grafana.sources.get(found[1])
            if not source or source["type"] not in self.grafana.plugins:
                self.answer(404, "plugin not registered")
                return
            self.json({"status": fetch(f"{source['url']}/api/v1/query?query=up")["status"]})
        elif path == "" or path.startswith("d/"):
            uid = path.split("/")[1] if path else self.grafana.home
            text = f"{person['login']} is {person['role']}"
            self.answer(200 if uid in dashboards else 404, document(dashboards.get(uid, "Dashboard not found"), text))
        else:
            self.answer(404, document("Page not found", ""))

    def cookie(self, name):
        return urllib.parse.unquote(self.cookies[name].value) if name in self.cookies else ""

    def json(self, value, **options):
        self.answer(200, json.dumps(value), kind="application/json", **options)

    def answer(self, status, text="", kind="text/html", location=None, cookies=None):
        body = text.encode()
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        for name, value in (cookies or {}).items():
            gone = "" if value else "; Max-Age=0"
            path = urllib.parse.urlsplit(self.grafana.root).path
            self.send_header("Set-Cookie", f"{name}={value}; Path={path}; HttpOnly; Secure; SameSite=Lax{gone}")
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def document(title, text):
    """Return a page that says what it is."""
    title, text = html.escape(title), html.escape(text)
    return f"<!doctype html><title>Stand-in</title><h1>{title}</h1><p>{text}</p><p>The tests' stand-in for Grafana</p>"


def main():
    found = (re.fullmatch(r"--(config|homepath)=(.+)", word) for word in sys.argv[2:])
    options = {each[1]: each[2] for each in found if each}
    if sys.argv[1:2] != ["server"] or set(options) != {"config", "homepath"}:
        sys.exit(__doc__)
    Handler.grafana = Grafana(settings(options["config"]), Path(options["homepath"]))
    address = Handler.grafana.config["server"]
    server = http.server.ThreadingHTTPServer((address["http_addr"], int(address["http_port"])), Handler)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    server.serve_forever()


if __name__ == "__main__":
    main()
