"""Spellings of ISO 8601 that files have and that events lack.

Other programs write the same time in other ways: in lower case, with a blank or the name UTC before the end, without
separators, with a decimal comma. None of them is ambiguous. Events that a program appends have one spelling: the SQL
function reads no other.
"""

import re

_EXTENDED = r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2}"
_BASIC = r"(?P<date>[0-9]{8})[Tt](?P<time>[0-9]{4}(?:[0-9]{2}"
_END = r"(?:[.,](?P<fraction>[0-9]+))?)?)(?: ?(?P<offset>[Zz]|UTC|[+-][0-9]{2}(?::?[0-9]{2}(?::[0-9]{2})?)?))?"
_FORMS = (re.compile(_EXTENDED + _END + ")?"), re.compile(_BASIC + _END))


def as_iso(text: str) -> str:
    """Return a time as ISO 8601 in the spelling of events; any other text unchanged. Pure.

    Args:
        text: a time such as `2026-03-01t09:00:00z`, `2026-03-01 09:00:00 UTC`, `20260301T090000,5Z`.
    """
    found = next((match for form in _FORMS if (match := form.fullmatch(text))), None)
    if found is None or found["time"] is None:
        return text
    date, time, offset = found["date"], found["time"], found["offset"] or ""
    if "-" not in date:
        date = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    whole = re.split("[.,]", time)[0]
    if ":" not in whole:
        whole = ":".join(re.findall("..", whole))
    fraction = f".{found['fraction']}" if found["fraction"] else ""
    return f"{date}T{whole}{fraction}{'Z' if offset in ('z', 'UTC') else offset}"
