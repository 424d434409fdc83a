"""What the gate needs to know of an action: its checks, what to hide, and what carries it out.

Rule: made when an action is first called, then kept; nothing here is on the way of starting up.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cra_mcp.atlas.model import Action, Atlas
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.backend import Backend, BoundAction
from cra_mcp.schema_check import SchemaFault, Validator, compile_schema, explain
from cra_mcp.trace.redact import Redactor, redactor_for


@dataclass(frozen=True, slots=True)
class Binding:
    """One action, ready to be checked and carried out."""

    action: Action
    parameters: Validator
    returns: Validator | None
    redactor: Redactor | None
    result_redactor: Redactor | None
    run: BoundAction | None

    def faults(self, parameters: Mapping[str, object]) -> list[SchemaFault]:
        """What is wrong with ``parameters``, at most five faults; empty if they are valid.

        Messages show values only of actions whose schema marks nothing as sensitive.
        """
        if self.parameters.is_valid(parameters):
            return []
        return explain(self.action.parameters_schema, parameters, masked=self.redactor is not None)


class Bindings:
    """Bindings by atlas digest and action id."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = backends
        self._known: dict[tuple[str, str], Binding] = {}

    @property
    def backends(self) -> Collection[Backend]:
        """The back ends in use."""
        return self._backends.values()

    def of(self, atlas: Atlas, action: Action) -> Binding:
        """The binding of an action.

        Raises:
            ExecutionError: its executor can't be bound.
        """
        key = (atlas.digest, action.action_id)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._bind(atlas, action)
        return found

    def forget(self, atlas: Atlas) -> None:
        """Drop what is known of an unloaded atlas."""
        self._known = {key: binding for key, binding in self._known.items() if key[0] != atlas.digest}

    def _bind(self, atlas: Atlas, action: Action) -> Binding:
        run: BoundAction | None = None
        if action.executor is not None:
            backend = self._backends.get(action.executor.type)
            if backend is not None:
                run = backend.bind(action, atlas)
        return Binding(
            action=action,
            parameters=compile_schema(action.parameters_schema),
            returns=compile_schema(action.returns_schema) if action.returns_schema is not None else None,
            redactor=redactor_for(action.parameters_schema),
            result_redactor=redactor_for(action.returns_schema),
            run=run,
        )


def no_executor(action: Action) -> ExecutionError:
    """What a call of an action without a usable back end answers."""
    return ExecutionError(
        "no_executor",
        f"{action.action_id} has no executor here, so it can be authorised but not carried out",
        hint="give the action an executor of type python, command, http or mcp in its atlas",
    )
