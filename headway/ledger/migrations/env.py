"""Environment of Alembic. It uses the ledger's connection: there is no alembic.ini and no second URL."""

from alembic import context

from headway.ledger.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
