"""JSON files: one object a line, several objects a line, arrays of objects, and objects over several lines."""

from collections.abc import Iterator, Sequence

from refold.errors import InputError
from refold.model.event.exact_json import parse_json_line, parse_json_lines
from refold.sources.files.json_values import Unclosed, Value, values
from refold.sources.files.lines import KEPT_BYTES, MAX_LINE_BYTES, Line, LineReader, Lines, decode
from refold.sources.files.records import Record, Records, Source

_BLANKS = " \t\r\n"


class JsonLines(Source):
    """A source with one JSON object per line; a line may also hold several objects without line breaks between."""

    def pieces(self) -> Iterator[Records | list[Record]]:
        row = 0
        while lines := self._lines.together():
            found = _whole(lines, row + 1) or [*self._one_by_one(lines, row)]
            row += len(found)
            yield found

    def _one_by_one(self, lines: Lines | list[Line], row: int) -> Iterator[Record]:
        """Yield the records of lines of which some hold no event, or several.

        Args:
            lines: the lines.
            row: number of records before them.
        """
        for line in lines:
            raw = line.text.strip(_BLANKS)
            if not raw:
                continue
            record = _record(line._replace(text=raw), row + 1, "line")
            # A line that is one object needs no second look; of a cut one, the rest would be lost without a word.
            several = None if record.error is None or line.cut else _several(raw)
            if several is None:
                row += 1
                yield record
                continue
            for text in several:
                row += 1
                # What was no text stands as \x.. in it; the other objects of the line are whole.
                error = line.error if "\\x" in text else None
                yield _record(line._replace(text=text, error=error), row, "line")


class JsonValues(Source):
    """A source with JSON arrays, or with objects that may extend over several lines, in bounded memory."""

    def pieces(self) -> Iterator[Records | list[Record]]:
        lines = self._lines
        try:
            for row, value in enumerate(values(lines.piece, lines.number + 1), 1):
                yield [_record(_line(value), row, "record")]
        except Unclosed as rest:
            raise InputError(
                f"{lines.label} ends early: what begins on line {rest.line} is not closed",
                remedy="Get the file again and repeat the command: no event is stored twice.",
            ) from None


def json_source(lines: LineReader, name: str) -> Source:
    """Return a source of JSON records; the first line decides on the reader.

    Args:
        lines: lines of the file, from its first record.
        name: name of the source.
    """
    first = lines.first()
    begin = first.strip()
    giant = len(first) > MAX_LINE_BYTES and not first.endswith(b"\n")
    if begin.startswith(b"[") or begin == b"{" or (giant and begin.startswith(b"{")):
        return JsonValues(lines, name)
    return JsonLines(lines, name)


def _whole(lines: Lines | list[Line], row: int) -> Records | None:
    """Return the objects of lines that hold one each or are blank; None if one of them holds anything else.

    Args:
        lines: the lines.
        row: number of the first record among them.
    """
    if not isinstance(lines, Lines):
        return None
    numbers: Sequence[int] = range(lines.number, lines.number + len(lines))
    raws = [text.strip(_BLANKS) for text in lines.texts]
    if not all(raws):
        numbers = [number for number, raw in zip(numbers, raws, strict=True) if raw]
        raws = [*filter(None, raws)]
    objects = parse_json_lines(raws)
    return None if objects is None else Records(row, numbers, raws, objects)


def _several(raw: str) -> list[str] | None:
    """Return the objects of a line that holds several, and nothing else; None for any other line."""
    if not raw.startswith("{"):
        return None
    pieces = iter((raw.encode(),))
    found: list[bytes] = []
    try:
        for value in values(lambda: next(pieces, b""), 1):
            found.append(value.data)
    except Unclosed as rest:
        found.append(rest.data)
    if len(found) < 2 or not all(data.startswith(b"{") for data in found):
        return None
    return [data.decode() for data in found]


def _line(value: Value) -> Line:
    line = decode(value.line, value.data)
    if value.size > len(value.data):
        error = f"has {value.size} bytes, more than {MAX_LINE_BYTES}; only the first {KEPT_BYTES} are kept"
        return line._replace(error=error)
    return line


def _record(line: Line, row: int, what: str) -> Record:
    if line.error:
        return Record(line.number, row, line.text, None, f"the {what} {line.error}")
    try:
        return Record(line.number, row, line.text, parse_json_line(line.text))
    except ValueError as error:
        return Record(line.number, row, line.text, None, f"the {what} {error}")
