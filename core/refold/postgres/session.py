"""What refold's sessions are set to, and why: one profile for each kind of work.

| profile      | whose                                            | for                             |
|--------------|--------------------------------------------------|---------------------------------|
| SESSION      | every connection that `connect` opens            | results that no operator's      |
|              |                                                  | setting can change              |
| COMMANDS     | commands that act as a worker, or only look      | plans as a worker's             |
| PAGES        | the connection of a worker's pages               | short transactions, same plans  |
| DUTIES       | the connection of a worker's duties              | long reads                      |
| DUTIES_ALONE | the same, where no proxy may pass it on          | plans for each audit, short     |
|              |                                                  | waits for locks                 |
| FREE_PLANS   | one transaction (`plan_freely`)                  | what reads much                 |
| INDEX_PLANS  | one transaction (`plan_by_index`)                | what looks up a few rows        |
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

# What would end a statement or a session half-way: a page, a load or an audit takes what it takes, and whoever bounds
# one of them sets a time of its own. Only a wait for a lock has an end: see refold.postgres.lock_waits.
_NO_TIMEOUTS = {
    "statement_timeout": "0",
    "lock_timeout": "5min",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "exit_on_error": "off",
}
# A page looks after it has locked (so not in one snapshot), and writes.
_TRANSACTIONS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
}
# What text means, in both directions. Whatever a projection's value depends on is in here: days are UTC days.
_TEXT = {
    "TimeZone": "UTC",
    "timezone_abbreviations": "Default",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "xmloption": "content",
    "lc_numeric": "C",
    "lc_monetary": "C",
    "lc_time": "C",
    "standard_conforming_strings": "on",
    "backslash_quote": "safe_encoding",
    "escape_string_warning": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "search_path": "refold, pg_catalog, pg_temp",
}
# What is made, and what can be seen.
_OBJECTS = {
    "row_security": "on",
    "check_function_bodies": "on",
    # A partitioned log is in none, and a segment that a producer makes belongs to who owns the log.
    "default_tablespace": "",
    "default_table_access_method": "heap",
    "restrict_nonsystem_relation_kind": "",
    "createrole_self_grant": "",
    "client_min_messages": "notice",
}
# A plan must not depend on what somebody has turned off for another's sake. Costs and memory stay the operator's.
_PLANS = {
    "plan_cache_mode": "auto",
    "debug_parallel_query": "off",
    "force_parallel_mode": "off",
    **dict.fromkeys(
        (
            "enable_async_append",
            "enable_bitmapscan",
            "enable_gathermerge",
            "enable_hashagg",
            "enable_hashjoin",
            "enable_incremental_sort",
            "enable_indexonlyscan",
            "enable_indexscan",
            "enable_material",
            "enable_memoize",
            "enable_mergejoin",
            "enable_nestloop",
            "enable_parallel_append",
            "enable_parallel_hash",
            "enable_partition_pruning",
            "enable_seqscan",
            "enable_sort",
            "enable_tidscan",
        ),
        "on",
    ),
}

SESSION: Mapping[str, str] = _NO_TIMEOUTS | _TRANSACTIONS | _TEXT | _OBJECTS | _PLANS
"""What every session of refold's own has. A server that is too old for a name does without."""

COMMANDS: dict[str, str] = {
    # Plans must not depend on how far a cursor has got (see refold.model.stream.page_sql).
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

PAGES: Mapping[str, str] = COMMANDS | {
    # Rows and cursor share a transaction: a crash that loses one loses both, and the page is done again.
    "synchronous_commit": "off",
    # Somebody may have one build's table locked: the worker begins again with the others.
    "lock_timeout": "2s",
    # A generic plan knows neither the size of a page nor that a segment which was empty is filling.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
}

DUTIES: Mapping[str, str] = {
    # What a crash takes back is found again, and the locks of a heal need not wait for the disk.
    "synchronous_commit": "off",
    "jit": "off",
}

DUTIES_ALONE: Mapping[str, str] = {
    # The next step of an audit looks at another part of history.
    "plan_cache_mode": "force_custom_plan",
    # While a heal waits for a build with a long page, it may hold up those above it. Shorter than a page of a build
    # that is far behind, and it would come to nothing until that has caught up.
    "lock_timeout": "5s",
}

FREE_PLANS: Mapping[str, str] = {
    "plan_cache_mode": "force_custom_plan",
    "enable_seqscan": "on",
    "enable_bitmapscan": "on",
    "enable_sort": "on",
}

INDEX_PLANS: Mapping[str, str] = {"enable_seqscan": "off", "enable_bitmapscan": "off", "jit": "off"}


def plan_freely(conn: psycopg.Connection) -> None:
    """Lets this transaction plan as its statements need it: a worker's session is set up for pages."""
    conn.execute(_FREELY)


def plan_by_index(conn: psycopg.Connection) -> None:
    """Lets this transaction look things up by index, whatever the planner believes about how little a table holds."""
    conn.execute(_BY_INDEX)


def _local(profile: Mapping[str, str]) -> bytes:
    return "; ".join(f"SET LOCAL {name} = {value}" for name, value in profile.items()).encode()


_FREELY = _local(FREE_PLANS)
_BY_INDEX = _local(INDEX_PLANS)
