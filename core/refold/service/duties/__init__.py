"""Self-healing duties: nobody has to notice, and nobody has to help.

Each is one small file and the same four steps: find (SQL that only reads), decide (pure, returns findings as data),
act in one transaction, and record what was found and done as incidents. `refold.service.duties.registry` lists them.
"""
