"""The last stage of the gate: an approved call is carried out, and what became of it recorded.

Rule: bounded in time and number; whatever happens leaves an event, and what could not be recorded is not handed on. No text of
a foreign exception leaves here. Source: specs/carp.md, "Execution" and "Results".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import anyio
import anyio.lowlevel

from cra_mcp.errors import AskError, CRAError, CredentialError, ExecutionError, TraceUnavailableError
from cra_mcp.execution.backend import Invocation, Result
from cra_mcp.gate.asking import RecordedClient
from cra_mcp.gate.attempt import Attempt, Recorder, beside, limiter_of_loop
from cra_mcp.gate.binding import Binding, no_executor
from cra_mcp.gate.call import ExecutionOutcome, Fault
from cra_mcp.gate.charging import Charging
from cra_mcp.gate.results import Measured, measure, recorded_result
from cra_mcp.gate.standing import check_again
from cra_mcp.policy.engine import PolicySet
from cra_mcp.settings import RuntimeConfig

_limiters: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("cra_gate_limiter")


@dataclass(frozen=True, slots=True)
class _Judged:
    """A result, what is wrong with it, and what the event of its outcome keeps of it."""

    measured: Measured
    fault: Fault | None
    kept: Mapping[str, object]


class Executing:
    """Carries out what the gate has approved.

    Args:
        config: limits and recording.
        recorder: where events go.
        charging: settles what calls have cost.
        policy_set_of: the policies now in force for an action; None: it is no longer loaded.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        recorder: Recorder,
        charging: Charging,
        policy_set_of: Callable[[str], PolicySet | None],
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._charging = charging
        self._policy_set_of = policy_set_of

    async def carry_out(self, attempt: Attempt, binding: Binding) -> ExecutionOutcome:
        """Carry out a call whose approval is stored, and record its outcome.

        Raises:
            The backend's cancellation, after its outcome is stored.
        """
        started_ns = self._config.clock_ns()
        try:
            result = await self._run(attempt, binding)
        except (ExecutionError, AskError, CredentialError, TraceUnavailableError) as error:
            return self._failed(attempt, started_ns, fault_of(error))
        except anyio.get_cancelled_exc_class():
            self._failed(attempt, started_ns, Fault("cancelled", "the caller cancelled the call"))
            raise
        except Exception as error:  # noqa: BLE001 - foreign code may raise anything; its text may hold secrets
            name = type(error).__name__
            return self._failed(attempt, started_ns, Fault("execution_failed", f"the action failed ({name})"))
        judged = await self._judge(binding, result)
        measured, fault = judged.measured, judged.fault
        if fault is not None:
            return self._failed(attempt, started_ns, fault, measured=measured)
        kept = judged.kept
        if result.is_error:
            fault = Fault("tool_error", "the tool reported an error")
            return self._failed(attempt, started_ns, fault, measured=measured, result=measured.result, kept=kept)
        if attempt.charges:
            policy_set = self._policy_set_of(attempt.call.action_id)
            kept = {**kept, "costs": await self._charging.settle(attempt, policy_set, result.value)}
        return self._succeeded(attempt, started_ns, measured, kept)

    async def _run(self, attempt: Attempt, binding: Binding) -> Result:
        action = binding.action
        if binding.run is None:
            raise no_executor(action)
        client = attempt.call.client
        invocation = Invocation(
            action_id=action.action_id,
            session_id=attempt.call.session.session_id,
            execution_id=attempt.call.execution_id,
            parameters=attempt.parameters,
            on_progress=attempt.call.on_progress,
            client=RecordedClient(client, action, attempt, self._recorder) if client is not None else None,
        )
        began = False
        limiter = self._limiter()
        with anyio.move_on_after(action.timeout_s):
            waited = await _enter(limiter)
            try:
                if waited:
                    await check_again(attempt.call)
                began = True
                return await binding.run(invocation)
            finally:
                limiter.release()
        if began:
            raise ExecutionError(
                "timeout",
                f"{action.action_id} did not finish within {action.timeout_s:g} s and was ended",
                hint="its effects may have happened in part; check before calling it again",
            )
        raise ExecutionError(
            "busy", f"{self._config.max_concurrency} actions are running already", hint="call it again later"
        )

    def _succeeded(
        self, attempt: Attempt, started_ns: int, measured: Measured, kept: Mapping[str, object]
    ) -> ExecutionOutcome:
        payload: dict[str, object] = {
            "action_id": attempt.call.action_id,
            "execution_id": attempt.call.execution_id,
            "duration_ms": self._elapsed_ms(started_ns),
            "result_hash": measured.hash,
            "result_bytes": measured.size,
            **kept,
        }
        if measured.cut:
            payload["result_cut"] = True
        attempt.note("action.executed", payload)
        try:
            head = self._recorder.append(attempt)
        except TraceUnavailableError as error:
            return self._unrecorded(attempt, error)
        return self._recorder.outcome(attempt, "success", head, result=measured.result)

    def _failed(
        self,
        attempt: Attempt,
        started_ns: int,
        fault: Fault,
        *,
        measured: Measured | None = None,
        result: Result | None = None,
        kept: Mapping[str, object] = MappingProxyType({}),
    ) -> ExecutionOutcome:
        payload: dict[str, object] = {
            "action_id": attempt.call.action_id,
            "execution_id": attempt.call.execution_id,
            "error_code": fault.code,
            "error_message": fault.message,
            "duration_ms": self._elapsed_ms(started_ns),
            **kept,
        }
        if measured is not None:
            payload["result_hash"] = measured.hash
            payload["result_bytes"] = measured.size
        attempt.note("action.failed", payload)
        try:
            head = self._recorder.append(attempt)
        except TraceUnavailableError as error:
            return self._unrecorded(attempt, error)
        return self._recorder.outcome(attempt, "error", head, fault=fault, result=result)

    async def _judge(self, binding: Binding, result: Result) -> "_Judged":
        """Measure and check a result; off the event loop where that may take long."""
        return await beside((result.value, result.content), lambda: self._judged(binding, result))

    def _judged(self, binding: Binding, result: Result) -> "_Judged":
        measured = measure(result, self._config.max_result_bytes, self._config.max_binary_bytes)
        fault = _check_result(binding, measured)
        kept = recorded_result(measured, binding.result_redactor, self._config) if fault is None else {}
        return _Judged(measured, fault, kept)

    def _unrecorded(self, attempt: Attempt, error: TraceUnavailableError) -> ExecutionOutcome:
        """The action ran, and its outcome could not be stored: what isn't in the trace is not handed on."""
        fault = Fault(
            error.code,
            f"{attempt.call.action_id} was carried out, but its outcome could not be recorded, so it is withheld",
            hint=error.hint,
        )
        return self._recorder.outcome(attempt, "error", None, fault=fault)

    def _limiter(self) -> anyio.CapacityLimiter:
        return limiter_of_loop(_limiters, self._config.max_concurrency)

    def _elapsed_ms(self, started_ns: int) -> float:
        return max(0, self._config.clock_ns() - started_ns) // 1_000 / 1_000


async def _enter(limiter: anyio.CapacityLimiter) -> bool:
    """Take a slot; where one is free without the round through the event loop that waiting takes. Whether it waited."""
    try:
        limiter.acquire_nowait()
    except anyio.WouldBlock:
        await limiter.acquire()
        return True
    return False


def _check_result(binding: Binding, measured: Measured) -> Fault | None:
    """What is wrong with a result; tool errors and cut results can't meet the schema and are marked otherwise."""
    if binding.returns is None or measured.result.is_error:
        return None
    if measured.cut:
        return Fault(
            "output_too_large",
            f"{binding.action.action_id} was carried out, but its result has {measured.size} bytes, which is over the limit",
            hint="ask for less at a time",
        )
    if binding.returns.is_valid(measured.result.value):
        return None
    return Fault(
        "invalid_result",
        f"{binding.action.action_id} was carried out, but its result does not fit its returns_schema, so it is withheld",
        hint="correct the action or its returns_schema in the atlas",
    )


def fault_of(error: CRAError) -> Fault:
    """What an error answers."""
    if isinstance(error, ExecutionError) and error.faults:
        faults = [{"pointer": at, "message": message} for at, message in error.faults]
        return Fault(error.code, error.message, error.hint, {"faults": faults})
    lacking = error.capability if isinstance(error, AskError) else None
    return Fault(error.code, error.message, error.hint, {"capability": lacking} if lacking is not None else {})
