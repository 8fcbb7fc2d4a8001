"""What to write instead of a statement that is no SELECT."""

from __future__ import annotations

from sqlglot import exp

_REMEDIES: dict[str, str] = {
    **dict.fromkeys(
        ("INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "COPY"),
        "Write a SELECT: a projection only reads. Events come in with `refold ingest` or refold.append(jsonb).",
    ),
    **dict.fromkeys(
        ("VACUUM", "ANALYZE", "REINDEX", "CLUSTER", "CHECKPOINT", "REFRESH"),
        "Write a SELECT: refold creates the metric's table and keeps it up to date. Run maintenance in psql.",
    ),
    **dict.fromkeys(
        ("SET", "RESET", "SHOW", "DISCARD", "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT"),
        "Write a SELECT: refold opens its own transactions and sets their settings.",
    ),
    **dict.fromkeys(
        ("LOCK", "LISTEN", "NOTIFY", "UNLISTEN"), "Write a SELECT: refold takes its own locks and wakes its workers."
    ),
    **dict.fromkeys(
        ("GRANT", "REVOKE", "ALTER"),
        "Write a SELECT: refold_analyst may read every metric. A file in sql/views/ may grant access to its view.",
    ),
    **dict.fromkeys(
        ("COMMENT", "SECURITY"), "Write a SELECT, and put comments into lines that begin with --: the metric gets them."
    ),
    **dict.fromkeys(
        ("CALL", "DO"), "Write a SELECT, or a transform in Python: a function of one event, in a file NAME.py."
    ),
    **dict.fromkeys(("DECLARE", "PREPARE", "EXECUTE", "FETCH", "DEALLOCATE"), "Write the SELECT itself."),
    "EXPLAIN": "Remove EXPLAIN; `refold explain` shows how a projection is kept.",
    "CREATE": "Write a SELECT: refold creates the table, its indexes and the view, which has the name of the file.",
    "DROP": "Write a SELECT, or remove the file and run `refold drop NAME`.",
    "VALUES": "Write a SELECT … FROM events, or put constant rows into a view in sql/views/.",
}
_OTHERWISE = "Write one SELECT … FROM events, and run other statements in psql."


def instead(word: str, statement: exp.Expr) -> str:
    """Return the remedy for a file whose statement is no SELECT.

    Args:
        word: the first word of the statement, in any case.
        statement: its tree.
    """
    if isinstance(statement, exp.Create) and isinstance(statement.expression, exp.Query):
        return "Remove everything before SELECT: the metric has the name of its file."
    return _REMEDIES.get(word.upper(), _OTHERWISE)
