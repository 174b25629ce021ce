"""Every route, asked in every way by everybody. A new route is covered as soon as its address can be built."""

import json
from typing import Any

import pytest
from werkzeug.routing import Rule

from tests.infrastructure.security.conftest import ADAS, ADMINISTRATORS, Site

PEOPLE = ["visitor", "ada", "grace", "admin"]
METHODS = ["GET", "HEAD", "OPTIONS", "TRACE", "POST", "PUT", "PATCH", "DELETE"]
# These are for visitors; a new name there would be one too many.
FOR_VISITORS = ["accounts.login", "accounts.register", "account.forgot"]
# Who reads the mail may use the link, whoever is logged in.
FOR_READERS = ["account.confirm", "account.reset"]


def may_post(who: str, rule: Rule) -> bool:
    """Whether this person may use this form: visitors come in, administrators operate, all others change their own."""
    if rule.endpoint in FOR_READERS:
        return True
    if rule.rule.startswith("/api/"):
        return False  # That takes no form.
    if who == "visitor":
        return rule.endpoint in FOR_VISITORS
    if rule.endpoint.startswith("operations."):
        return who == "admin"
    return who == "ada" or not rule.arguments


@pytest.mark.parametrize("who", PEOPLE)
def test_no_request_without_the_pages_own_token_changes_anything_or_fails(site: Site, who: str) -> None:
    bodies: list[dict[str, Any]] = [
        {},
        site.form(),
        site.form(site.tokens["ada" if who == "grace" else "grace"]),
        {"data": json.dumps({"title": "t", "body": "b"}), "content_type": "application/json"},
    ]
    before = site.state()
    for rule in site.rules:
        address = site.address(rule)
        for method in METHODS:
            for body in bodies:
                response = site.ask(who, address, method, **body)
                asked = f"{method} {rule.rule} by {who}, {body.get('content_type', 'no body')}: {response.status}"
                assert response.status_code < 500, asked
                assert site.missing_headers(response) == set(), asked
                assert site.state() == before, f"{asked} changed something"


@pytest.mark.parametrize("who", PEOPLE)
def test_a_form_is_for_those_whose_thing_it_changes(site: Site, who: str) -> None:
    """Each request has the token of the person who sends it; what is taken is undone before the next."""
    body = site.form(site.tokens[who])
    login = site.form(site.tokens[who], username="ada")
    for rule in site.rules:
        if "POST" not in (rule.methods or ()):
            continue
        before = site.state()
        response = site.ask(who, site.address(rule), "POST", **(login if rule.endpoint == "accounts.login" else body))
        asked = f"POST {rule.rule} by {who}: {response.status}"
        assert site.missing_headers(response) == set(), asked
        if may_post(who, rule):
            assert response.status_code in (201, 302), f"{asked}; does Site.form() lack a field of it?"
            site.restore()
        else:
            assert response.status_code in (302, 401, 403, 404, 415), asked
            assert site.state() == before, f"{asked} changed something"


def test_what_is_private_is_shown_to_its_owner_alone(site: Site) -> None:
    seen = {
        who: {mark for rule in site.rules for mark in (ADAS, ADMINISTRATORS) if mark in page(site, who, rule)}
        for who in PEOPLE
    }
    assert seen == {"visitor": set(), "ada": {ADAS}, "grace": set(), "admin": {ADMINISTRATORS}}


def page(site: Site, who: str, rule: Rule) -> str:
    return site.ask(who, site.address(rule)).get_data().decode("utf-8", "replace")
