"""SQL that sends the keys of changed rows to the queues of sinks, in the statement that changes the rows. Pure text."""

from __future__ import annotations

from dataclasses import dataclass

from refold.model.sink_queue import KEYS, queue
from refold.model.sql_text import ident, indent, quoted
from refold.model.upkeep.statements import Relation


@dataclass(frozen=True, slots=True)
class Outbox:
    """The queues to which the pages of a build send keys.

    Args:
        sinks: numbers of the sinks; none for most builds, and then nothing is added to any statement.
    """

    sinks: tuple[int, ...] = ()

    def returning(self, relation: Relation) -> str:
        """Return the columns that a RETURNING clause needs besides those of its checksums."""
        return "".join(f", {ident(name)}" for name in relation.key) if self.sinks else ""

    def sent(self, relation: Relation, *sources: str) -> str:
        """Return the CTEs, after a comma, that send the keys; empty without a sink.

        Args:
            relation: the table of the rows.
            sources: relations of rows with the columns of RETURNING. Of two, one has the rows before, the other those
                after: what is the same in both is not sent.
        """
        if not self.sinks:
            return ""
        # A list for each column, not an object for each key: that costs a third.
        lists = ", ".join(f"{quoted(name)}, jsonb_agg({ident(name)})" for name in relation.key)
        keys = ", ".join(map(ident, relation.key))
        if len(sources) == 1:
            changed = f"SELECT slice__, {keys} FROM {sources[0]}"
        else:
            rows = "\nUNION ALL\n".join(f"SELECT slice__, new__, {keys} FROM {source}" for source in sources)
            changed = (
                f"SELECT slice__, {keys}\nFROM (\n{indent(rows)}\n) AS both_sides\nGROUP BY slice__, {keys}\n"
                f"HAVING count(*) <> {len(sources)} OR min(new__) <> max(new__)"
            )
        messages = (
            f"SELECT jsonb_build_object('slices', jsonb_agg(slice__), 'key', jsonb_build_object({lists})) AS message\n"
            f"FROM (\n    SELECT *, row_number() OVER () AS at__ FROM (\n{indent(changed, 8)}\n    ) AS changed\n"
            f") AS numbered\nGROUP BY at__ / {KEYS}"
        )
        # Behind MATERIALIZED the messages are made once, whatever the number of sinks.
        parts = [f"messages__ AS MATERIALIZED (\n{indent(messages)}\n)"]
        for sink_id in self.sinks:
            parts.append(
                f"sent_{sink_id}__ AS (\n"
                f"    INSERT INTO pgmq.q_{queue(sink_id)} (vt, message)\n"
                f"    SELECT clock_timestamp(), message FROM messages__\n)"
            )
        return ",\n" + ",\n".join(parts)


NO_SINKS = Outbox()
