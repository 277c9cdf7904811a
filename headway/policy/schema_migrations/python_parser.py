"""Migrations in Python: Alembic's revisions and Django's migrations, read as syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from headway.policy.schema_migrations import sql_parser
from headway.policy.schema_migrations.operation import Operation

__all__ = ["read"]

# Of Alembic: name of the call -> what it does.
_TAKES = {"drop_table": "drops", "drop_column": "drops a column of", "rename_table": "renames"}
_FORBIDS = (
    "create_unique_constraint",
    "create_check_constraint",
    "create_foreign_key",
    "create_primary_key",
    "create_exclude_constraint",
)
# Of Django: likewise.
_REMOVES = {
    "DeleteModel": "deletes model",
    "RemoveField": "removes a field of",
    "RenameField": "renames a field of",
    "RenameModel": "renames model",
    "AlterField": "alters a field of",
    "AlterModelTable": "moves model",
    "AddConstraint": "adds a constraint to",
    "AlterUniqueTogether": "makes something unique in",
}


def read(text: str) -> Iterator[Operation]:
    """Operations of a migration, without those of its downgrade.

    Text that is not Python has none; the migration tool reports the error.
    """
    try:
        module = ast.parse(text)
    except SyntaxError:
        return
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name == "upgrade":
            yield from _alembic(node)
        elif isinstance(node, ast.ClassDef) and node.name == "Migration":
            yield from _django(node)


# --- Alembic -----------------------------------------------------------------------------------------------------


def _alembic(upgrade: ast.FunctionDef) -> Iterator[Operation]:
    calls = [node for node in ast.walk(upgrade) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    batches = dict(_batches(upgrade))
    made = {_first(call) for call in calls if _called(call) == "create_table"}
    for call in calls:
        name, line = _called(call), call.lineno
        table = batches.get(_owner(call)) or _table(call, name)
        if name == "create_table":
            yield Operation("expand", line, f"creates table {table}")
        elif name == "execute":
            for one in sql_parser.read(_text(call)):
                yield one._replace(line=line)
        elif table in made:
            continue
        elif name in _TAKES:
            yield Operation("contract", line, f"{_TAKES[name]} {table}")
        elif name in _FORBIDS or (name == "create_index" and _is(call, "unique", True)):
            yield Operation("contract", line, f"adds a constraint to {table}")
        elif name == "alter_column":
            strict = _has(call, "type_", "new_column_name") or _is(call, "nullable", False)
            yield Operation("contract" if strict else "expand", line, f"alters a column of {table}")
        elif name == "add_column":
            yield Operation("expand", line, f"adds a column to {table}")
            column = next((one for one in call.args if isinstance(one, ast.Call)), call)
            kept = {_called(one) for one in ast.walk(column) if isinstance(one, ast.Call)} & {"Identity", "Computed"}
            if _is(column, "nullable", False) and not _has(column, "server_default") and not kept:
                yield Operation(
                    "contract", line, f"adds a column to {table} that others do not fill: no server_default"
                )


def _batches(upgrade: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Variable -> table of each `with op.batch_alter_table(...) as variable`."""
    for node in ast.walk(upgrade):
        for item in node.items if isinstance(node, ast.With) else ():
            call, variable = item.context_expr, item.optional_vars
            if isinstance(call, ast.Call) and _called(call) == "batch_alter_table" and isinstance(variable, ast.Name):
                yield variable.id, _first(call)


def _table(call: ast.Call, name: str) -> str:
    """Constraints and indexes are named first, the table comes after."""
    after = name in _FORBIDS or name == "create_index"
    arguments = call.args[1:] if after else call.args
    return _constant(arguments[0]) if arguments else ""


# --- Django ------------------------------------------------------------------------------------------------------


def _django(migration: ast.ClassDef) -> Iterator[Operation]:
    lists = [
        statement.value
        for statement in migration.body
        if isinstance(statement, ast.Assign) and any(_named(target) == "operations" for target in statement.targets)
    ]
    calls = [call for found in lists for call in _elements(found)]
    made = {_model(call) for call in calls if _called(call) == "CreateModel"}
    for call in calls:
        name, line, model = _called(call), call.lineno, _model(call)
        if name == "CreateModel":
            yield Operation("expand", line, f"creates model {model}")
        elif name == "RunSQL":
            for one in sql_parser.read(_text(call)):
                yield one._replace(line=line)
        elif model in made:
            continue
        elif name in _REMOVES:
            yield Operation("contract", line, f"{_REMOVES[name]} {model}")
        elif name == "AddField":
            yield Operation("expand", line, f"adds a field to {model}")
            field = _keyword(call, "field") or (call.args[2] if len(call.args) > 2 else None)
            if isinstance(field, ast.Call) and not _optional(field):
                # Django takes its own default from the column as soon as the rows have it.
                yield Operation(
                    "contract", line, f"adds a field to {model} that others do not fill: neither null nor db_default"
                )


def _elements(found: ast.expr) -> Iterator[ast.Call]:
    for element in found.elts if isinstance(found, ast.List | ast.Tuple) else ():
        if not isinstance(element, ast.Call):
            continue
        if _called(element) == "SeparateDatabaseAndState":
            inner = _keyword(element, "database_operations") or (element.args[0] if element.args else None)
            yield from _elements(inner) if inner else ()
        else:
            yield element


def _optional(field: ast.Call) -> bool:
    return _called(field) == "ManyToManyField" or _is(field, "null", True) or _has(field, "db_default")


def _model(call: ast.Call) -> str:
    name = _keyword(call, "model_name") or _keyword(call, "name") or (call.args[0] if call.args else None)
    return _constant(name).lower() if name else ""


# --- syntax ------------------------------------------------------------------------------------------------------


def _called(call: ast.Call) -> str:
    return _named(call.func)


def _named(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _owner(call: ast.Call) -> str:
    return _named(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def _constant(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _first(call: ast.Call) -> str:
    return _constant(call.args[0]) if call.args else ""


def _text(call: ast.Call) -> str:
    """All that is written out in it."""
    return ";".join(
        node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _has(call: ast.Call, *names: str) -> bool:
    return any(_keyword(call, name) is not None for name in names)


def _is(call: ast.Call, name: str, value: bool) -> bool:
    found = _keyword(call, name)
    return isinstance(found, ast.Constant) and found.value is value
