"""Options are refused with what to write instead, and without showing what may be a secret."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from refold.sinks.kinds.webhook import WebhookOptions
from refold.sinks.kinds.webhook.options import checked_url

RIGHT: dict[str, Any] = {"url": "https://crm.example/hook", "secrets": ["env:CRM_SECRET"]}
LITERAL = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def wrong(**options: Any) -> str:
    with pytest.raises(ValidationError) as told:
        WebhookOptions(**{**RIGHT, **options})
    (one,) = told.value.errors()
    assert "hunter2" not in str(told.value) and LITERAL not in str(told.value)
    return f"{'.'.join(map(str, one['loc']))}: {one['msg']}"


def test_the_defaults() -> None:
    options = WebhookOptions(**RIGHT)
    assert (options.body, options.timeout_s, options.allow_private, options.batch) == ("standard", 15.0, False, None)


def test_what_is_right() -> None:
    WebhookOptions(
        url="env:CRM_URL",
        secrets=("env:NEW", "file:/run/secrets/old"),
        body="cloudevents",
        headers={"Authorization": "env:CRM_TOKEN", "X-Tenant": "7", "X-Team": "file:/run/team"},
        timeout_s=3,
        allow_private=True,
        ca="/etc/ssl/own.pem",
        batch=100,
    )


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("crm.example/hunter2", "must begin with https:// or http://: write https://host/path"),
        ("ftp://crm.example/hunter2", "must begin with https:// or http://"),
        ("file:hunter2", "file: must be followed by an absolute path"),
        ("env:hunter2/x", "env: must be followed by the name of an environment variable"),
        ("https://user:hunter2@crm.example/", 'write headers = {Authorization = "env:NAME"}'),
        ("https://hunter2@crm.example/", "must not hold a user or a password"),
        ("https:///hunter2", "has no valid host"),
        ("https://crm.example\\hunter2", "has no valid host"),
        ("https://crm..example/hunter2", "has no valid host"),
        ("https://" + "x" * 64 + ".example/", "has no valid host"),
        ("https://[fe80::1%25eth0]/", "has no valid host"),
        ("https://[::1/hunter2", "is no url"),
        ("https://crm.example:hunter2/", "has no valid port"),
        ("https://crm.example:99999/", "has no valid port: write https://host:8443/path"),
        ("https://crm.example:0/", "has no valid port"),
        ("https://crm.example/#hunter2", "must not have a part after #"),
        ("https://crm.example/a b", "write %20 for a space"),
        ("https://größe.example/", "a host with umlauts as xn--"),
        ("https://crm.example/\nhunter2", "must be ASCII without spaces"),
        ("", "must be ASCII"),
    ],
)
def test_urls(url: str, text: str) -> None:
    assert text in wrong(url=url)


def test_what_a_url_names() -> None:
    assert checked_url("https://CRM.example/a?b=1") == ("https", "crm.example", 443, "/a?b=1", "crm.example")
    assert checked_url("http://crm.example:8080") == ("http", "crm.example", 8080, "/", "crm.example:8080")
    assert checked_url("https://[2001:db8::1]:8443/x") == ("https", "2001:db8::1", 8443, "/x", "[2001:db8::1]:8443")
    assert checked_url("https://[2001:db8::1]/x").authority == "[2001:db8::1]"
    assert checked_url("http://crm.example:80/").authority == "crm.example"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"secrets": [LITERAL]}, 'holds a secret: write ["env:NAME"]'),
        ({"secrets": ["env:A", LITERAL]}, "secrets: Value error, holds a secret"),
        ({"secrets": ["env:hunter2-x"]}, "write env:NAME"),
        ({"secrets": []}, "must have 1 to 5 references"),
        ({"secrets": ["env:A"] * 6}, "must have 1 to 5 references"),
        ({"body": "xml"}, "'standard' or 'cloudevents'"),
        ({"timeout_s": 0}, "greater than 0"),
        ({"timeout_s": 46}, "less than or equal to 45"),
        ({"batch": 0}, "greater than or equal to 1"),
        ({"ca": "own.pem"}, "must be an absolute path"),
        ({"retries": 3}, "retries: Extra inputs are not permitted"),
        ({"headers": {"Authorization": "Bearer hunter2"}}, 'write Authorization = "env:NAME"'),
        ({"headers": {"X-Api-Key": "hunter2"}}, "X-Api-Key holds a secret"),
        ({"headers": {"Cookie": "hunter2"}}, "Cookie holds a secret"),
        ({"headers": {"Webhook-Id": "1"}}, "Webhook-Id is set by refold: leave it out"),
        ({"headers": {"content-type": "text/plain"}}, "content-type is set by refold"),
        ({"headers": {"Host": "x"}}, "Host is set by refold"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "x-a is there twice"),
        ({"headers": {"X A": "1"}}, "'X A' cannot name a header"),
        ({"headers": {"X-A": "1\r\nX-B: hunter2"}}, "X-A: must be printable ASCII"),
        ({"headers": {"X-A": "env:a b"}}, "X-A: env: must be followed by"),
    ],
)
def test_other_options(options: dict[str, Any], text: str) -> None:
    assert text in wrong(**options)


def test_the_repr_shows_no_address_and_no_header() -> None:
    shown = repr(WebhookOptions(**{**RIGHT, "url": "https://crm.example/hunter2", "headers": {"X-A": "hunter2"}}))
    assert "hunter2" not in shown
