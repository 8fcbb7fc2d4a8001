"""Writes the generated parts of docs/reference from the code.

python scripts/reference.py            write them
python scripts/reference.py --check    exit with 1 if one is not current

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is around it is written by hand.
NAME is one of `BLOCKS`, with an argument after a blank where it takes one.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer.main
from pydantic import BaseModel
from sqlalchemy import CheckConstraint, Column, Table
from sqlalchemy.dialects import postgresql

import refold
from refold.cli.app import app
from refold.cli.commands import COMMANDS
from refold.exporter import names
from refold.store.schema.tables import metadata

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "reference"
BLOCK = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def cell(text: str) -> str:
    """A text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# Commands


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command by its words, groups walked through."""

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        below = getattr(command, "commands", None)
        if below is None:
            yield words, command
            return
        if words == "refold":
            below = {name: command.load(name) for name in below}
        if command.invoke_without_command and command.callback is not None and words != "refold":
            yield words, command
        for name, one in below.items():
            yield from walk(f"{words} {name}", one)

    return walk("refold", typer.main.get_command(app))


@cache
def all_commands() -> dict[str, Any]:
    """Return every command by its words."""
    return dict(commands())


def command_list() -> str:
    """Return the commands by panel, each with a link to its section and the first sentence of its help."""
    known = all_commands()
    lines: list[str] = []
    for panel in dict.fromkeys(listed.panel for listed in COMMANDS.values()):
        rows = []
        for name, listed in COMMANDS.items():
            if listed.panel != panel:
                continue
            words = f"refold {name}"
            targets = [words] if words in known else [one for one in known if one.startswith(f"{words} ")]
            links = ", ".join(f"[`{one}`](#{anchor(one)})" for one in targets)
            rows.append((links, cell(listed.help)))
        lines += [f"**{panel}**\n\n", table(("command", "what it does"), rows), "\n"]
    return "".join(lines)


def anchor(words: str) -> str:
    """Return the anchor of a command's heading."""
    return words.replace(" ", "-")


def usage(words: str) -> str:
    """Return how a command is called, what it takes, and its options with their help."""
    command = all_commands()[words]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    called = [words, *(_metavar(one) for one in arguments), "[OPTIONS]"]
    rows = [(f"`{cell(_metavar(one))}`", cell(one.help or "")) for one in arguments]
    rows += [(_flags(one), cell(one.help or "") + _default(one)) for one in options if "--help" not in one.opts]
    rows = [row for row in rows if "--database-url" not in row[0]]
    head = f"```text\n{' '.join(called)}\n```\n"
    return head + (f"\n{table(('option', 'what it does'), rows)}" if rows else "")


def _metavar(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper().strip("[]")
    name = name.removesuffix("...").removesuffix("…")
    more = "…" if argument.nargs == -1 else ""
    return f"{name}{more}" if argument.required else f"[{name}{more}]"


def _flags(option: Any) -> str:
    names = sorted([*option.opts, *option.secondary_opts], key=len, reverse=True)
    takes = "" if option.is_flag or option.count else f" {option.metavar or _kind(option)}"
    return ", ".join(f"`{name}{takes if name.startswith('--') else ''}`" for name in names).replace("|", "\\|")


def _kind(option: Any) -> str:
    """Return what stands for an option's value: its choices, or the kind of thing."""
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    if isinstance(kind, type) and issubclass(kind, int):
        return "N"
    return "SECONDS" if kind is float else "TEXT"


def _default(option: Any) -> str:
    value = option.default
    if option.required:
        return " Required."
    if (
        value is None
        or isinstance(value, bool)
        or callable(value)
        or value in ((), [])
        or "efault" in (option.help or "")
    ):
        return ""
    return f" Default: `{value.value if isinstance(value, Enum) else value}`."


# Python


def python() -> str:
    """Return all that `from refold import …` gives, from signatures and docstrings."""
    order = ["append", "Log", "SourceEvent", "Receipt", "Answer", "pressure", "Pressure", "transform", "Event"]
    order += ["RefoldError", "Overloaded"]
    assert {*order, "__version__"} == {*refold.__all__}, "a new public name: put it where it belongs"
    return "\n".join(_entry(name, getattr(refold, name)) for name in order)


def _entry(name: str, found: Any) -> str:
    lines = [f"### `{name}`\n\n"]
    if not inspect.isclass(found):
        return "".join([*lines, _signature(name, found), _prose(found)])
    if issubclass(found, BaseModel):
        rows = [(f"`{field}`", f"`{_written(found, field)}`", _field_doc(found, field)) for field in found.model_fields]
        return "".join([*lines, _prose(found), table(("field", "type", "what it is"), rows)])
    if issubclass(found, Enum):
        values = [(f"`{one.value}`", _field_doc(found, one.name)) for one in found]
        return "".join([*lines, _prose(found), table(("value", "meaning"), values)])
    if issubclass(found, Exception) and found is not refold.RefoldError:
        return "".join([*lines, _signature(name, found), _prose(found)])
    if issubclass(found, Exception):
        tree = (inspect.getdoc(sys.modules[found.__module__]) or "").split("\n\n", 1)[1]
        return "".join([*lines, _prose(found), f"```text\n{tree}\n```\n"])
    lines += [_signature(name, found), _prose(found)]
    for method, function in vars(found).items():
        if inspect.isfunction(function) and not method.startswith("_") and method in ("append", "close"):
            lines += [f"#### `{name}.{method}`\n\n", _signature(f"{name}.{method}", function), _prose(function)]
    return "".join(lines)


def _signature(name: str, found: Any) -> str:
    signature = inspect.signature(found)
    parameters = []
    keyword_only = False
    for one in signature.parameters.values():
        if one.name == "self":
            continue
        if one.kind is one.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            parameters.append("*")
        parameters.append(str(one))
    result = (
        "" if signature.return_annotation in (signature.empty, "None", None) else f" -> {signature.return_annotation}"
    )
    short = f"{name}({', '.join(parameters)}){result}"
    if len(short) > 88:
        short = f"{name}(\n" + "".join(f"    {one},\n" for one in parameters) + f"){result}"
    short = re.sub(r"ForwardRef\('(.*?)'\)", r"\1", short)
    short = re.sub(r"(: |-> )'([^']*)'", r"\1\2", short)
    return f"```python\n{short}\n```\n\n"


def _written(model: type[BaseModel], field: str) -> str:
    """Return the annotation of a field as its author wrote it, without what `Annotated` adds."""
    node = next(one for one in _body(model) if isinstance(one, ast.AnnAssign) and _name(one.target) == field)
    annotation: ast.expr = node.annotation
    if isinstance(annotation, ast.Subscript) and _name(annotation.value) == "Annotated":
        annotation = annotation.slice.elts[0] if isinstance(annotation.slice, ast.Tuple) else annotation.slice
    return ast.unparse(annotation).replace("Text", "str").replace("|", "\\|")


def _field_doc(model: type, field: str) -> str:
    """Return the string that stands below a field in the source."""
    body = _body(model)
    for before, after in pairwise(body):
        target: ast.expr | None = before.target if isinstance(before, ast.AnnAssign) else None
        if isinstance(before, ast.Assign):
            target = before.targets[0]
        if target is not None and _name(target) == field and isinstance(after, ast.Expr):
            return cell(str(ast.literal_eval(after.value)))
    return ""


def _body(model: type) -> list[ast.stmt]:
    made = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(made, ast.ClassDef)
    return made.body


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


SECTIONS = {"Args:": "Arguments", "Returns:": "Returns", "Raises:": "Raises"}


def _prose(found: Any) -> str:
    """Return a docstring as Markdown: its sections become lists."""
    text = inspect.getdoc(found) or ""
    out: list[str] = []
    listing = False
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Returns|Raises):", line):
            out += [f"**{SECTIONS[line]}**", ""]
            listing = True
        elif listing and (item := re.fullmatch(r"    ([\w.]+): (.*)", line)):
            out.append(f"- `{item[1]}`: {item[2]}")
        elif listing and line.startswith("    "):
            more = line.strip()
            if out[-1].startswith("- "):
                out[-1] += f" {more}"
            elif out[-1] == "":
                out.append(f"- {more}")
        else:
            listing = listing and line == ""
            out.append(line)
    return "\n".join(out).rstrip() + "\n\n"


# SQL


def granted() -> dict[str, set[str]]:
    """Return which roles may execute which function, from the grants."""
    text = re.sub(r"--.*", "", (ROOT / "sql" / "roles" / "grants.sql").read_text(encoding="utf-8"))
    found: dict[str, set[str]] = {}
    for functions, roles in re.findall(r"GRANT EXECUTE ON FUNCTION(.*?)\bTO\b(.*?);", text, re.DOTALL):
        for function in re.findall(r"refold\.(\w+)\(", functions):
            found.setdefault(function, set()).update(role.strip() for role in roles.split(","))
    return found


PUBLIC_FUNCTIONS = ("append", "ensure_room", "window_funnel", "window_funnel_times")
"""Those that a user calls. What else a role may execute is called by refold itself."""


def functions() -> str:
    """Return the SQL functions that a user may call, from their comments and grants."""
    roles = granted()
    lines = []
    for name in PUBLIC_FUNCTIONS:
        kind = "functions" if (ROOT / "sql" / "functions" / f"{name}.sql").exists() else "aggregates"
        text = (ROOT / "sql" / kind / f"{name}.sql").read_text(encoding="utf-8")
        comment = re.search(
            rf"COMMENT ON (FUNCTION|AGGREGATE) refold\.{name}\((.*?)\)\s+IS\s+'((?:[^']|'')*)'", text, re.DOTALL
        )
        made = re.search(
            rf"CREATE OR REPLACE (?:FUNCTION|AGGREGATE) refold\.{name}\s*\((.*?)\)\s*(RETURNS .*?)?\s*"
            r"(?:LANGUAGE|\(\s*SFUNC)",
            text,
            re.DOTALL,
        )
        assert comment is not None and made is not None, name
        returns = f" {' '.join(made[2].split())}" if made[2] else ""
        allowed = ", ".join(f"`{one}`" for one in sorted(roles.get(name, ()))) or "all roles of refold"
        lines += [
            f"### `refold.{name}`\n\n",
            f"```sql\nrefold.{name}({' '.join(made[1].split())}){returns}\n```\n\n",
            f"{' '.join(comment[3].replace(chr(39) * 2, chr(39)).split())}\n\n",
            f"May be executed by: {allowed}.\n\n",
        ]
    return "".join(lines).rstrip() + "\n"


# Tables


def tables() -> str:
    """Return refold's own tables with their columns, from the comments of `refold.store.schema.tables`."""
    notes = column_notes()
    parts = []
    for one in sorted(metadata.tables.values(), key=lambda found: found.name):
        if one.name == "settings":
            columns = "Its columns are on the page [Settings](settings.md).\n\n"
        else:
            rows = [
                (f"`{column.name}`", _type(column), notes.get((one.name, column.name), "")) for column in one.columns
            ]
            columns = table(("column", "type", "what it is"), rows) + "\n"
        parts.append(f"### `refold.{one.name}`\n\n{one.comment}\n\n{columns}{_values(one)}")
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _type(column: Column[Any]) -> str:
    name = str(column.type.compile(dialect=DIALECT)).lower().replace("timestamp with time zone", "timestamptz")
    name = re.sub(r' collate "c"', "", name, flags=re.IGNORECASE)
    return f"`{name}`" + ("" if not column.nullable else ", may be null")


def _values(found: Table) -> str:
    """Return the values that a column may have, where a constraint lists them."""
    lines = []
    for one in found.constraints:
        if isinstance(one, CheckConstraint):
            listed = re.fullmatch(r"(\w+) IN \((.*)\)", str(one.sqltext), re.DOTALL)
            if listed:
                values = ", ".join(f"`{value}`" for value in re.findall(r"'([^']*)'", listed[2]))
                lines.append(f"- `{listed[1]}` is one of {values}.\n")
    return "".join(sorted(lines))


def column_notes() -> dict[tuple[str, str], str]:
    """Return the comment that stands above each column in the source, by table and column."""
    source = inspect.getsource(sys.modules["refold.store.schema.tables"])
    notes: dict[tuple[str, str], str] = {}
    current = ""
    above: list[str] = []
    for line in source.splitlines():
        if (opened := re.fullmatch(r"(\w+) = Table\(", line)) is not None:
            current, above = opened[1], []
        elif (comment := re.fullmatch(r"    # (.*)", line)) is not None:
            above.append(comment[1])
        elif (column := re.match(r'    Column\(\s*"?(\w+)?', line)) is not None:
            if column[1] and above:
                notes[current, column[1]] = cell(" ".join(above))
            above = []
            if (inline := re.search(r'comment="(.*?)"', line)) is not None and column[1]:
                notes[current, column[1]] = cell(inline[1])
        elif line.strip() and not line.startswith("     "):
            above = []
    return notes


def setting(name: str) -> Column[Any]:
    """Return the column of `refold.settings` with this name."""
    return metadata.tables["refold.settings"].columns[name]


def settings() -> str:
    """Return every setting with its type and default; those of refold's own bookkeeping left out."""
    notes = column_notes()
    rows = []
    own = {"singleton", "system_identifier", "hash_probe"}
    for column in metadata.tables["refold.settings"].columns:
        if column.name not in own:
            default = str(getattr(column.server_default, "arg", "")).strip("'")
            rows.append((f"`{column.name}`", _type(column), f"`{default}`", SETTING_NOTES[column.name]))
    assert set(SETTING_NOTES) == {row[0].strip("`") for row in rows}, "a setting without a note, or the other way round"
    assert notes
    return table(("setting", "type", "default", "what it is"), rows)


SETTING_NOTES = {
    "segment_size": "Positions in one segment (partition) of the log, rounded up to whole slices from 16,384 on.",
    "segments_ahead": "Segments that workers keep ready, at least; more where producers bring more.",
    "max_dead_letters": "Dead letters of a build that may wait before it counts as broken.",
    "dead_letter_share": "Share of a page that may fail. Ten events may always fail.",
    "too_many_dead_letters": "What a live build does beyond these limits: `go on`, with an incident, or `stop`.",
    "lag_limit": "Seconds that a live metric may be behind before the incident `lag` opens.",
    "stalled_after": "Seconds that a build with work may stand still before the incident `stalled` opens.",
    "held_back_after": "Seconds that a transaction that has written to the log may stay open.",
    "held_snapshot_after": "Seconds for which a session may hold a snapshot.",
    "impure_sample": "Events of each transform that are evaluated twice, every minute.",
    "latency_days": "Days for which latencies, and the hours of proofs, are kept.",
    "deep_audit_days": "Days in which the rolling deep audit recomputes all of history once.",
    "rejected_days": "Days after which rejected input is removed that was not sent again.",
    "repair_days": "Days after which repairs and released dead letters are removed.",
    "incident_days": "Days after which closed incidents are removed.",
    "build_days": "Days after which a dropped build is forgotten with its dead letters, and after which the table of a "
    "metric that `refold drop` has removed goes.",
    "scrub_days": "Days in which all of the log is verified once.",
    "lag_stop": "Seconds behind the log from which producers are refused; null never does.",
    "disk_limit": "Bytes that the database and its WAL may take together; null is unknown.",
    "outbox_messages": "Messages that may wait for a sink; beyond, they are dropped, and slices are compared.",
    "outbox_mib": "Size that they may have, MiB.",
    "outbox_hours": "Age that the oldest of them may have, hours.",
    "trace_days": "Days for which it is kept which trace appended an event.",
    "archive": "Where the archive of the log is; `refold archive claim` sets it. Null: there is none.",
    "cold_buckets": "Buckets of the cold ledger, a power of two; it stays once ids are in them. Null: chosen then.",
    "archive_after": "Seconds since a segment was sealed, after which it is archived.",
    "keep_log": "Time since a segment was sealed, after which it leaves the log, once it is archived; null: it stays.",
    "anomaly_budget": "False alarms a week that the tests for anomalies may give, of all series together; 0: no tests.",
    "erasure_keeps": "Fields of an erased person's metadata that stay, besides those of `--keep`.",
    "backups_kept": "Time for which backups of the database are kept; null: the proof of an erasure gives no date.",
    "versions_kept": "Time for which the archive's bucket keeps former versions of objects, 0 if it keeps none; null:"
    " the proof of an erasure gives no date.",
    "unknown_versions": "What is done with an event of a version without a contract, if its action has one: `accept`,"
    " `warn` or `reject`.",
}


# What Prometheus scrapes


def exported(group: str) -> str:
    """Return the names of a group, `DEPLOYMENT` or `BUILDS`, with type, labels and meaning."""
    return table(
        ("name", "type", "labels", "what it is"),
        [
            (f"`{one.shown}`", one.type, ", ".join(f"`{label}`" for label in one.labels), cell(one.help))
            for one in getattr(names, group).values()
        ],
    )


BLOCKS: dict[str, Callable[..., str]] = {
    "commands": command_list,
    "usage": usage,
    "python": python,
    "functions": functions,
    "tables": tables,
    "settings": settings,
    "exported": exported,
}


def current(text: str) -> str:
    """Return a page with its generated parts made anew."""

    def made(found: re.Match[str]) -> str:
        name, _, argument = found["name"].partition(" ")
        body = BLOCKS[name](argument) if argument else BLOCKS[name]()
        return f"{found[1]}\n{body.strip()}\n\n{found[4]}"

    return BLOCK.sub(made, text)


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are not current."""
    stale = []
    for page in sorted(PAGES.glob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = current(before)
        if after != before:
            stale.append(page.relative_to(ROOT))
            if "--check" not in arguments:
                page.write_text(after, encoding="utf-8")
    for page in stale:
        print(f"{'not current' if '--check' in arguments else 'written'}: {page}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
