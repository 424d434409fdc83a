"""From checked parts to an atlas: values, context documents, compiled policies.

Rule: nothing here refuses anything but what only the whole can show; what is refused has been found before.
Source: specs/atlas.md.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Literal, cast

from cra_mcp.atlas.assembly import Item, Parts
from cra_mcp.atlas.case_form import CasePart, TestFile
from cra_mcp.atlas.checks import CONTENT_TYPES, instant_us
from cra_mcp.atlas.executor_form import (
    CommandExecutorPart,
    HttpBodyPart,
    HttpExecutorPart,
    McpExecutorPart,
    PythonExecutorPart,
)
from cra_mcp.atlas.manifest import (
    ActionPart,
    ContextPackPart,
    ManifestHead,
    PromptPublication,
    ResourcePublication,
    ToolPublication,
    UpstreamPart,
)
from cra_mcp.atlas.model import (
    DEFAULT_RETRIES,
    Action,
    Atlas,
    Capability,
    CommandExecutor,
    ContextBlock,
    Executor,
    HttpBody,
    HttpExecutor,
    McpExecutor,
    PolicyCase,
    Publication,
    PythonExecutor,
    RateLimit,
    SecretReference,
    Upstream,
)
from cra_mcp.policy.compiler import conditions_from_manifest, default_effect, policy_from_manifest
from cra_mcp.policy.conditions import compile_globs
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.model import ActionFacts, Facts, Limit, Policy, RiskTier

CHARACTERS_PER_TOKEN = 4
_INLINE_TYPE = "text/markdown"
_SECOND_US = 1_000_000
_NOT_IN_AN_ID = re.compile(r"[^a-z0-9_-]+")
_EMPTY: Mapping[str, object] = {}


def build(parts: Parts, head: ManifestHead) -> Atlas:
    """Make the atlas. ``parts`` had no problems; those that only now show are added to them."""
    capabilities = tuple(_capabilities(parts))
    actions = tuple(_action(item.part, capabilities, head.durability) for item in parts.actions)
    policies = tuple(_policies(parts, actions, head.atlas_id))
    blocks = tuple(_context_blocks(parts, head.atlas_id))
    facts = [action.facts for action in actions]
    return Atlas(
        atlas_id=head.atlas_id,
        version=head.version,
        name=head.name,
        description=head.description,
        digest=parts.package.digest(),
        actions=actions,
        policies=policies,
        policy_set=compile_policies(policies, facts, default_effect(policies, head.default_effect)),
        context_blocks=blocks,
        capabilities=capabilities,
        upstreams={name: _upstream(name, item.part) for name, item in parts.upstreams.items()},
        root=parts.package.root,
        manifest=parts.manifest,
        cases=tuple(case for item in parts.tests for case in cases_of(item)),
        tried=tuple(action for item in parts.tests for action in tried_of(item)),
        overlay=head.overlay,
        detectors=frozenset(head.redaction.detectors if head.redaction is not None else ()),
    )


def _capabilities(parts: Parts) -> Iterator[Capability]:
    declared = [item.part.action_id for item in parts.actions]
    for item in parts.capabilities:
        part = item.part
        matches = compile_globs(part.actions)
        yield Capability(
            capability_id=part.capability_id,
            name=part.name,
            description=part.description or "",
            actions=tuple(action_id for action_id in declared if matches(action_id)),
            context_packs=tuple(part.context_packs),
        )


def _action(
    part: ActionPart, capabilities: tuple[Capability, ...], default: Literal["kernel", "durable"] | None
) -> Action:
    limit = part.rate_limit
    return Action(
        action_id=part.action_id,
        name=part.name,
        description=part.description,
        parameters_schema=part.parameters_schema,
        returns_schema=part.returns_schema,
        risk_tier=RiskTier(part.risk_tier),
        idempotent=part.idempotent,
        requires_confirmation=part.requires_confirmation,
        timeout_s=part.timeout_seconds,
        rate_limit=None if limit is None else RateLimit(limit.max_calls, limit.window_seconds),
        durability=part.durability or default,
        cost=part.cost,
        executor=_executor(part),
        capabilities=frozenset(each.capability_id for each in capabilities if part.action_id in each.actions),
        publication=_publication(part),
    )


def _publication(action: ActionPart) -> Publication:
    match action.publish:
        case None:
            return Publication()
        case ToolPublication(name=name, parameters_schema=form):
            return Publication("tool", name, exact_schema=form == "exact")
        case PromptPublication(name=name):
            return Publication("prompt", name)
        case ResourcePublication(name=name, uri=uri, mime_type=kind):
            return Publication("resource", name, uri, kind)


def _executor(action: ActionPart) -> Executor | None:
    match action.executor:
        case None:
            return None
        case McpExecutorPart(upstream=upstream, tool=tool):
            return McpExecutor(upstream, tool)
        case PythonExecutorPart(callable=name, context=context, asks=asks):
            return PythonExecutor(name, context, frozenset(asks or ()))
        case CommandExecutorPart() as part:
            return CommandExecutor(tuple(part.argv), part.cwd, tuple(part.env), part.max_output_bytes)
        case HttpExecutorPart() as part:
            return _http_executor(part)


def _http_executor(part: HttpExecutorPart) -> HttpExecutor:
    body = part.body
    return HttpExecutor(
        method=part.method,
        url=part.url,
        query=part.query,
        headers=part.headers,
        body=None if body is None else _http_body(body),
        secrets=tuple(
            SecretReference(name, secret.env, secret.keyring, secret.prefix, secret.encode, secret.place)
            for name, secret in part.secrets.items()
        ),
        result=part.result,
        retries=DEFAULT_RETRIES if part.retries is None else part.retries,
        max_redirects=part.max_redirects,
        allow_hosts=tuple(part.allow_hosts),
        max_response_bytes=part.max_response_bytes,
    )


def _http_body(part: HttpBodyPart) -> HttpBody:
    return HttpBody(part.json_value) if part.form is None else HttpBody(part.form, "form")


def _upstream(name: str, part: UpstreamPart) -> Upstream:
    return Upstream(name, part.command, tuple(part.args), part.env, part.cwd, part.url, part.headers)


def _policies(parts: Parts, actions: tuple[Action, ...], atlas_id: str) -> Iterator[Policy]:
    """Those of the files in their order, then those that actions imply."""
    order = 0
    for order, item in enumerate(parts.policies, start=1):
        yield policy_from_manifest(item.raw, order, namespace=atlas_id)
    for action in actions:
        if action.requires_confirmation:
            order += 1
            yield Policy(
                policy_id=f"action:{action.action_id}:requires_confirmation",
                type="require_approval",
                actions=(action.action_id,),
                reason="this action needs a person's approval each time",
                order=order,
            )
        if action.rate_limit is not None:
            order += 1
            policy_id = f"action:{action.action_id}:rate_limit"
            limit = action.rate_limit
            yield Policy(
                policy_id=policy_id,
                type="rate_limit",
                actions=(action.action_id,),
                reason=f"at most {limit.max_calls} calls in {limit.window_seconds} seconds",
                limit=Limit(f"{atlas_id}/{policy_id}", limit.max_calls, limit.window_seconds * _SECOND_US),
                order=order,
            )


def _context_blocks(parts: Parts, atlas_id: str) -> Iterator[ContextBlock]:
    taken: set[str] = set()
    for item in parts.context_packs:
        for block in _pack_blocks(item, parts, atlas_id):
            if block.block_id in taken:
                item.place.add("duplicate_id", f"two documents would have the block id {block.block_id}")
            taken.add(block.block_id)
            yield block


def _pack_blocks(item: Item[ContextPackPart], parts: Parts, atlas_id: str) -> Iterator[ContextBlock]:
    pack = item.part
    conditions = conditions_from_manifest(cast("Mapping[str, object]", item.raw.get("conditions", _EMPTY)))
    if pack.content is not None:
        documents = [(pack.pack_id, pack.pack_id, _INLINE_TYPE, pack.content)]
    else:
        paths = pack.files or []
        documents = [
            (
                pack.pack_id if len(paths) == 1 else f"{pack.pack_id}.{_stem(path)}",
                path,
                CONTENT_TYPES[PurePosixPath(path).suffix],
                parts.package.files[path].decode(),
            )
            for path in paths
        ]
    for block_id, source, content_type, text in documents:
        content = _cut(text, pack.max_tokens)
        yield ContextBlock(
            block_id=block_id,
            pack_id=pack.pack_id,
            name=pack.name,
            source=f"{atlas_id}/{source}",
            content_type=content_type,
            content=content,
            priority=pack.priority,
            token_estimate=-(-len(content) // CHARACTERS_PER_TOKEN),
            keywords=tuple(pack.keywords),
            conditions=conditions,
        )


def _stem(path: str) -> str:
    return _NOT_IN_AN_ID.sub("-", PurePosixPath(path).stem.lower()).strip("-") or "document"


def _cut(text: str, max_tokens: int | None) -> str:
    """A text of at most so many tokens; one that is cut says so in its last line."""
    if max_tokens is None or len(text) <= max_tokens * CHARACTERS_PER_TOKEN:
        return text
    marker = f"\n[cut: limit of {max_tokens} tokens]"
    return text[: max_tokens * CHARACTERS_PER_TOKEN - len(marker)] + marker


def cases_of(item: Item[TestFile]) -> Iterator[PolicyCase]:
    """The tests of a file."""
    return (_case(case, item.place.file) for case in item.part.cases)


def tried_of(item: Item[TestFile]) -> Iterator[ActionFacts]:
    """The actions that a file of tests brings."""
    for action in item.part.actions:
        yield ActionFacts(
            action.action_id,
            RiskTier(action.risk_tier),
            frozenset(action.capabilities),
            action.parameters_schema,
            action.cost,
        )


def _case(part: CasePart, file: str) -> PolicyCase:
    facts = part.facts
    return PolicyCase(
        name=part.name,
        file=file,
        action_id=part.action_id,
        facts=Facts(
            agent_id=facts.agent_id,
            session_id=facts.session_id,
            tenant=facts.tenant,
            task_risk=RiskTier(facts.task_risk),
            context=facts.context,
            subject=facts.subject,
            roles=frozenset(facts.roles),
        ),
        at_us=instant_us(part.at),
        args=part.args,
        approved=part.approved,
        calls_before=part.calls_before,
        counters=part.counters,
        expect=part.expect.model_dump(exclude_none=True),
    )
