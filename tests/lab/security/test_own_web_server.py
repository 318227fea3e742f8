"""A person's own web server, behind the front door, sets no header that holds for the front door's whole origin."""

import pytest

CONFIG = "/home/marie/.jupyter/jupyter_server_config.py"
HEADERS = {
    "Service-Worker-Allowed": "/",
    "Clear-Site-Data": '"cookies"',
    "Access-Control-Allow-Origin": "https://elsewhere.example.org",
    "Access-Control-Allow-Credentials": "true",
    "Strict-Transport-Security": "max-age=0",
    "X-Sent-By": "marie",
}


@pytest.fixture
def answer(lab, hub):
    """The front door's answer for Marie's server, which sends HEADERS."""
    config = f'c.ServerApp.tornado_settings = {{"headers": {HEADERS!r}}}\n'
    lab.as_user("marie", ["mkdir", "-p", CONFIG.rpartition("/")[0]])
    lab.as_user("marie", ["tee", CONFIG], input=config)
    try:
        hub.start_server("marie")
        yield hub.ask("GET", "api", base="/user/marie/", token=hub.standing_token("marie"))
    finally:
        lab.as_user("marie", ["rm", CONFIG])
        hub.stop_server("marie")


def test_headers_for_the_whole_origin_are_removed(answer):
    assert answer.headers["X-Sent-By"] == "marie", "the server sends the headers"
    passed = {name: answer.headers[name] for name in HEADERS if answer.headers.get(name) == HEADERS[name]}
    assert passed == {"X-Sent-By": "marie"}
