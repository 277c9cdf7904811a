"""How the database follows the code: which migrations a release brings, what they do, and when they may be done.

An expand adds what the new version needs and takes nothing from the old one: it is done before the rollout. A contract
takes away what only the old version needs: it is done when that one is retired and nobody will go back to it (D.
Sato, Parallel Change, 2014). Pure: what files say comes in, what is to be done comes out.
"""

from headway.config.migration_tools import FILES, files_of, is_migration
from headway.policy.schema_migrations.decision import Decision, decide
from headway.policy.schema_migrations.operation import Operation
from headway.policy.schema_migrations.operations import operations

__all__ = ["FILES", "Decision", "Operation", "decide", "files_of", "is_migration", "operations"]
