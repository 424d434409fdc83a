"""Removes one guard at a time and shows which tests notice; a guard nobody would miss is a failure.

``python tests/sabotage.py`` works on a copy of the tree. Each guard is a text that occurs once in its file and what disables it.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Guard:
    """One guard: where it is, how it is removed, and the tests that must then fail."""

    what: str
    file: str
    old: str
    new: str
    tests: str


GUARDS = (
    Guard(
        "in shadow mode the operator's denials hold",
        "cra_mcp/atlas/overlay.py",
        'tuple(policy for policy in layer.policies if policy.type == "deny")',
        "()",
        "tests/gate/test_shadow.py",
    ),
    Guard(
        "a shadow decision says that it was not enforced",
        "cra_mcp/gate/shadow.py",
        '"enforced": False',
        '"enforced": True',
        "tests/gate/test_shadow.py",
    ),
    Guard(
        "an exported deny applies where what it reads is missing",
        "cra_mcp/policy/export/cedar.py",
        'otherwise = "false" if lenient else "true"',
        'otherwise = "false"',
        "tests/policy/test_export.py",
    ),
    Guard(
        "a deny in Rego applies unless it is shown not to",
        "cra_mcp/policy/export/rego.py",
        'f"matches_{numbers[test]}" if lenient else f"not fails_{numbers[test]}"',
        'f"matches_{numbers[test]}"',
        "tests/policy/test_rego_export.py",
    ),
    Guard(
        "a denied call is refused before its parameters are looked at",
        "cra_mcp/gate/refusing.py",
        'return decision.effect == "deny" and decision.basis not in {"rate_limit", "budget"}',
        "return False",
        "tests/specs/test_conformance.py",
    ),
    Guard(
        "a call is decided again when its arguments have been checked",
        "cra_mcp/gate/gate.py",
        "if reads_args:\n            decision = self._decide(atlas, action, attempt)",
        "if False:\n            decision = self._decide(atlas, action, attempt)",
        "tests/gate/test_call_conditions.py",
    ),
    Guard(
        "a frozen call is refused",
        "cra_mcp/gate/gate.py",
        "decision = self._frozen(atlas, facts) or decision\n        if is_denied",
        "pass",
        "tests/state/test_freezes.py",
    ),
    Guard(
        "what can't be read counts as frozen",
        "cra_mcp/gate/gate.py",
        'return Decision("deny", "freeze", "freeze", error.message)',
        "return None",
        "tests/state/test_freezes.py",
    ),
    Guard(
        "an expression that can't be evaluated is an error, not false",
        "cra_mcp/policy/calls.py",
        "except EvaluationError:\n            return ERROR",
        "except EvaluationError:\n            return 0",
        "tests/policy/test_conformance.py",
    ),
    Guard(
        "a layer that nothing opens is closed",
        "cra_mcp/policy/tables.py",
        "    if closed:",
        "    if False:",
        "tests/policy/test_conformance.py",
    ),
    Guard(
        "what is hidden by the arguments is announced nowhere",
        "cra_mcp/policy/tables.py",
        "and each.rule.policy.disclose and",
        "and",
        "tests/gate/test_call_conditions.py",
    ),
    Guard(
        "only what is allowed at last goes on",
        "cra_mcp/gate/gate.py",
        'if decision.effect != "allow":',
        "if False:",
        "tests/gate/test_exits.py",
    ),
    Guard(
        "parameters are checked",
        "cra_mcp/gate/gate.py",
        "fault = fault or check_parameters(binding, attempt.parameters)",
        "fault = None",
        "tests/gate/test_exits.py",
    ),
    Guard(
        "an action outside the resolution is unknown",
        "cra_mcp/gate/gate.py",
        "if call.action_id not in call.resolution.outcome.members:",
        "if False:",
        "tests/specs/test_conformance.py",
    ),
    Guard(
        "intent is stored before acting",
        "cra_mcp/gate/gate.py",
        "        await self._recorder.store(attempt, durable=self._is_durable(action, granted))\n",
        "",
        "tests/gate/test_exits.py",
    ),
    Guard(
        "what can't be recorded is withheld",
        "cra_mcp/gate/executing.py",
        "        except TraceUnavailableError as error:\n            return self._unrecorded(attempt, error)\n"
        '        return self._recorder.outcome(attempt, "success"',
        "        except TraceUnavailableError:\n            head = None\n"
        '        return self._recorder.outcome(attempt, "success"',
        "tests/gate/test_exits.py",
    ),
    Guard(
        "approval is asked for",
        "cra_mcp/gate/gate.py",
        'if decision.effect == "require_approval":',
        "if False:",
        "tests/gate",
    ),
    Guard(
        "an approval is used once",
        "cra_mcp/approval/ledger.py",
        "UPDATE approvals SET status = 'consumed' WHERE approval_id = ? AND status = 'granted'",
        "UPDATE approvals SET status = 'granted' WHERE approval_id = ? AND status = 'granted'",
        "tests/gate/test_approvals.py",
    ),
    Guard(
        "an approval is for exactly these arguments",
        "cra_mcp/approval/ledger.py",
        "WHERE session_id = ? AND action_id = ? AND parameters_hash = ? ",
        "WHERE session_id = ? AND action_id = ? AND parameters_hash <> ? || 'x' ",
        "tests/gate/test_approvals.py",
    ),
    Guard(
        "an approval expires",
        "cra_mcp/approval/ledger.py",
        "AND expires_at_us <= ?",
        "AND expires_at_us <= ? - 10000000000000",
        "tests/gate/test_approvals.py",
    ),
    Guard(
        "sensitive values stay out of traces",
        "cra_mcp/gate/intake.py",
        "kept = redactor.apply(kept)",
        "pass",
        "tests/gate/test_recording.py",
    ),
    Guard(
        "what detectors find stays out of traces",
        "cra_mcp/trace/redacting.py",
        "clean[field] = kept",
        "clean[field] = value",
        "tests/trace/test_redacting.py",
    ),
    Guard(
        "what detectors find stays out of approvals",
        "cra_mcp/compose.py",
        "return parameters if shown is None else shown.adding(",
        "return parameters\n        return shown.adding(",
        "tests/trace/test_redacting.py",
    ),
    Guard(
        "a key of tokens that others can read is not used",
        "cra_mcp/trace/detect/key.py",
        'os.name == "posix" and status.st_mode & _OTHERS',
        "False",
        "tests/trace/test_detect.py",
    ),
    Guard(
        "a text too large to be searched is not kept",
        "cra_mcp/trace/detect/scan.py",
        "return [Span(0, len(text), UNSEARCHED)]\n        data",
        "return []\n        data",
        "tests/trace/test_detect.py",
    ),
    Guard(
        "no cell of an export runs as a formula",
        "cra_mcp/trace/export/csv_rows.py",
        """text = f"'{text}\"""",
        "pass",
        "tests/trace/export/test_text_formats.py",
    ),
    Guard(
        "the queue of an export is bounded",
        "cra_mcp/trace/export/live.py",
        "if self._waiting + len(lines) > self._max_events or self._waiting_bytes + size > MAX_BYTES:",
        "if False:",
        "tests/trace/export/test_live.py",
    ),
    Guard(
        "credentials of an export go to other machines over TLS only",
        "cra_mcp/trace/export/sinks.py",
        "if headers and self._context is None and self._host not in _LOCAL:",
        "if False:",
        "tests/trace/export/test_live.py",
    ),
    Guard(
        "foreign exception text stays inside",
        "cra_mcp/gate/executing.py",
        'f"the action failed ({name})"',
        'f"the action failed ({error})"',
        "tests/gate/test_exits.py",
    ),
    Guard(
        "a hidden action answers as an unknown one",
        "cra_mcp/gate/refusing.py",
        "    if not decision.disclose:\n",
        "    if False:\n",
        "tests/gate/test_exits.py",
    ),
    Guard(
        "a request can't change facts of its session",
        "cra_mcp/runtime/requests.py",
        "context={**message.context, **session.facts.context}",
        "context={**session.facts.context, **message.context}",
        "tests/runtime",
    ),
    Guard(
        "results are bounded",
        "cra_mcp/gate/results.py",
        "if size <= max_bytes:",
        "if True:",
        "tests/gate",
    ),
    Guard(
        "hidden actions are not resolved",
        "cra_mcp/resolution/deciding.py",
        'if item.decision.effect == "deny" and item.decision.disclose)',
        'if item.decision.effect == "deny")',
        "tests/resolution",
    ),
    Guard(
        "the compiled schema is asked",
        "cra_mcp/gate/binding.py",
        "if self.parameters.is_valid(parameters):",
        "if True:",
        "tests/gate/test_exits.py",
    ),
    Guard(
        "over-long lines are refused",
        "cra_mcp/faces/mcp/wire.py",
        "elif len(line) > self._max:",
        "elif False:",
        "tests/faces/mcp/test_front_door.py -k no_message",
    ),
    Guard(
        "the trace tool names no hidden policy",
        "cra_mcp/faces/mcp/trace_tool.py",
        "if isinstance(row, str) or row.policy_id not in hidden:",
        "if True:",
        "tests/faces/mcp/test_trace_views.py -k hides",
    ),
    Guard(
        "the trace tool gives no lines that tell of hidden policies",
        "cra_mcp/faces/mcp/trace_tool.py",
        "if as_lines and hidden:",
        "if False:",
        "tests/faces/mcp/test_trace_views.py -k hides",
    ),
    Guard(
        "what could leave its cell is escaped",
        "cra_mcp/faces/mcp/markdown.py",
        '_MARKUP = frozenset("|`\\\\")',
        "_MARKUP: frozenset[str] = frozenset()",
        "tests/faces/mcp/test_trace_views.py -k cell",
    ),
    Guard(
        "what nobody sees is escaped",
        "cra_mcp/faces/mcp/markdown.py",
        "category in _UNSEEN",
        "False",
        "tests/faces/mcp/test_trace_views.py -k cell",
    ),
    Guard(
        "the page's verifier compares hashes",
        "cra_mcp/faces/mcp/app/verifier.js",
        "if (event.event_hash !== hash) {",
        "if (false) {",
        "tests/faces/mcp/app/test_verifier.py -k node",
    ),
    Guard(
        "the page's verifier checks forms before it hashes",
        "cra_mcp/faces/mcp/app/verifier.js",
        "if (!holds(event[name]))",
        "if (false)",
        "tests/faces/mcp/app/test_verifier.py -k node",
    ),
    Guard(
        "the page's reader refuses keys given twice",
        "cra_mcp/faces/mcp/app/json.js",
        'if (members.has(key)) throw this.fault("a key occurs twice in one object");',
        "",
        "tests/faces/mcp/app/test_verifier.py -k node",
    ),
    Guard(
        "requests go to checked addresses only",
        "cra_mcp/execution/http_network.py",
        "if not may_reach(host, port, address, self._allowed):",
        "if False:",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "every address of a name is checked",
        "cra_mcp/execution/http_network.py",
        "for address in addresses:\n            if",
        "for address in addresses[:1]:\n            if",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "what is connected to is what was checked",
        "cra_mcp/execution/http_network.py",
        "addresses = await self._checked(host, port)",
        "addresses = await self._checked(host, port) and await self._resolve(host, port)",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "a name does not open link-local addresses",
        "cra_mcp/execution/http_addresses.py",
        "return host == address and allowed.has(host, port)",
        "return allowed.has(host, port)",
        "tests/execution/test_http_addresses.py",
    ),
    Guard(
        "IPv4 addresses inside others are looked at",
        "cra_mcp/execution/http_addresses.py",
        "if inside is not None:",
        "if False:",
        "tests/execution/test_http_addresses.py",
    ),
    Guard(
        "whoever guesses waits before the next guess is looked at",
        "cra_mcp/faces/mcp/http/limits.py",
        "self._buckets.take(address)",
        "pass",
        "tests/faces/http/test_limits.py -k guesses",
    ),
    Guard(
        "trailers are no headers",
        "cra_mcp/faces/mcp/http/protocol.py",
        "if self._in_head:\n            super().on_header(name, value.strip",
        "if True:\n            super().on_header(name, value.strip",
        "tests/faces/http/test_limits.py -k trailers",
    ),
    Guard(
        "the head of a request is bounded",
        "cra_mcp/faces/mcp/http/protocol.py",
        "self._overhead_bytes += len(data)",
        "pass",
        "tests/faces/http/test_limits.py -k trailers",
    ),
    Guard(
        "certificates are verified",
        "cra_mcp/execution/http_endpoint.py",
        "    context.minimum_version = ssl.TLSVersion.TLSv1_2\n",
        "    context.check_hostname = False\n    context.verify_mode = ssl.CERT_NONE\n",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "redirects stay with hosts the atlas names",
        "cra_mcp/execution/http_client.py",
        "if not _is_kept(first, origin) and not allowed.has(origin.host, origin.port):",
        "if False:",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "no redirect gives up TLS",
        "cra_mcp/execution/http_client.py",
        'if hop.origin.scheme == "https" and origin.scheme != "https":',
        "if False:",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "no redirect carries a secret away",
        "cra_mcp/execution/http_client.py",
        "if origin != first and mask.finds_in(target):",
        "if False:",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "secrets are for the first host",
        "cra_mcp/execution/http_client.py",
        "in_headers = in_headers if base.origin == first.origin else ()",
        "in_headers = tuple(in_headers)",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "no secret goes out in clear text",
        "cra_mcp/execution/http_endpoint.py",
        'if secrets and origin.scheme != "https" and not self._allowed.has(origin.host, origin.port):',
        "if False:",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "an echoed secret is hidden",
        "cra_mcp/execution/http_response.py",
        "_at(mask.value(_parsed(answer.body)), pointer)",
        "_at(_parsed(answer.body), pointer)",
        "tests/execution/test_http_security.py",
    ),
    Guard(
        "a secret cut in two is hidden",
        "cra_mcp/execution/http_response.py",
        "answer.body[: -mask.longest] if answer.cut and mask.longest else answer.body",
        "answer.body",
        "tests/execution/test_http_response.py",
    ),
    Guard(
        "answers are unpacked up to their limit",
        "cra_mcp/execution/http_client.py",
        "self._max_bytes - len(self._kept) + 1)",
        "0)",
        "tests/execution/test_http_endpoint.py -k bomb",
    ),
    Guard(
        "answers are read up to their limit",
        "cra_mcp/execution/http_client.py",
        "self.is_over = self.is_over or len(data) > room",
        "self.is_over = False",
        "tests/execution/test_http_endpoint.py -k up_to_its_limit",
    ),
    Guard(
        "only idempotent actions are tried again",
        "cra_mcp/execution/http_endpoint.py",
        "retries = executor.retries if action.idempotent else 0",
        "retries = executor.retries",
        "tests/execution/test_http_endpoint.py -k tried_again",
    ),
    Guard(
        "no value climbs out of its path",
        "cra_mcp/atlas/http_target.py",
        '.strip(" ") in (".", "..")',
        '.strip(" ") in ()',
        "tests/execution/test_http_request.py",
    ),
    Guard(
        "no value becomes two parts of a path",
        "cra_mcp/atlas/http_target.py",
        "if any(_SLASHES.search(_decoded(text)) for text in texts):",
        "if False:",
        "tests/execution/test_http_request.py",
    ),
    Guard(
        "no value breaks a header",
        "cra_mcp/execution/http_request.py",
        "if not _FIELD_VALUE.fullmatch(text):",
        "if False:",
        "tests/execution/test_http_request.py",
    ),
    Guard(
        "no atlas holds credentials",
        "cra_mcp/atlas/http_checks.py",
        "elif name.lower() in _CREDENTIALS:",
        "elif False:",
        "tests/atlas/test_http_checks.py",
    ),
    Guard(
        "no path of a document chooses the host",
        "cra_mcp/atlas/openapi.py",
        'if not path.startswith("/"):',
        "if False:",
        "tests/atlas/test_openapi.py",
    ),
    Guard(
        "a document says each thing once",
        "cra_mcp/atlas/yaml_text.py",
        "if key in known:",
        "if False:",
        "tests/atlas/test_yaml_text.py",
    ),
    Guard(
        "an action asks only for what its atlas declares",
        "cra_mcp/gate/asking.py",
        "if capability not in self._asks:",
        "if False:",
        "tests/gate/test_asking.py",
    ),
    Guard(
        "nobody is asked for what they did not declare",
        "cra_mcp/gate/asking.py",
        "if not self._client.can(capability):",
        "if False:",
        "tests/gate/test_asking.py",
    ),
    Guard(
        "a question is stored before it is sent",
        "cra_mcp/gate/asking.py",
        '        await self._record("x.cra.client.asked", {"questions": asked})\n',
        "",
        "tests/gate/test_asking.py",
    ),
    Guard(
        "an accepted form fits the schema it was asked with",
        "cra_mcp/gate/asking.py",
        "            _check_answer(key, question, answers[key])\n",
        "            pass\n",
        "tests/gate/test_asking.py",
    ),
    Guard(
        "what a client answers serves once",
        "cra_mcp/faces/mcp/rounds.py",
        'self._waiting.pop(request.request_state or "")',
        "pass",
        "tests/faces/mcp/test_talking_back.py",
    ),
    Guard(
        "a session has a few calls waiting at most",
        "cra_mcp/faces/mcp/rounds.py",
        "return theirs >= _MAX_WAITING_PER_SESSION",
        "return False",
        "tests/faces/mcp/test_talking_back.py",
    ),
    Guard(
        "a request whose seal is broken is recorded",
        "cra_mcp/faces/mcp/server.py",
        "if not opened and ctx.method in _CALLS:",
        "if False:",
        "tests/faces/mcp/test_talking_back.py",
    ),
    Guard(
        "what must look unknown is not named on a span",
        "cra_mcp/faces/mcp/tracing.py",
        'if fault is None or fault.code != "unknown_action":',
        "if True:",
        "tests/observability/test_tracing.py",
    ),
    Guard(
        "a trace is read by its owner only",
        "cra_mcp/access.py",
        "        if not self.may_read(session_id):\n",
        "        if False:\n",
        "tests/access",
    ),
    Guard(
        "a session is begun only by who may call",
        "cra_mcp/runtime/runtime.py",
        '            require(principal, "call")\n',
        "            pass\n",
        "tests/access",
    ),
    Guard(
        "approvals are settled by approvers",
        "cra_mcp/access.py",
        '        require(self.principal, "approve")\n        if not self.may_approve:',
        "        if False:",
        "tests/access",
    ),
    Guard(
        "a revoked or expired key lets nobody in",
        "cra_mcp/auth/keys.py",
        "if not same or key is None or not key.is_good_at(self._now_us()):",
        "if not same or key is None:",
        "tests/auth/test_keys.py",
    ),
    Guard(
        "the secret of a key is compared",
        "cra_mcp/auth/keys.py",
        "same = hmac.compare_digest(",
        "same = key is not None or hmac.compare_digest(",
        "tests/auth/test_keys.py",
    ),
    Guard(
        "a token is for this server",
        "cra_mcp/auth/tokens.py",
        "audience=self._rules.audience,",
        'audience=jwt.decode(token, options={"verify_signature": False}).get("aud"),',
        "tests/auth/test_tokens.py",
    ),
    Guard(
        "a key serves one algorithm",
        "cra_mcp/auth/jwks.py",
        "if key.algorithm == algorithm and key_id in {None, key.key_id}",
        "if key_id in {None, key.key_id}",
        "tests/auth/test_tokens.py",
    ),
    Guard(
        "tokens can't make us ask for keys as often as they like",
        "cra_mcp/auth/jwks.py",
        "now - self._tried_at < _PAUSE_S",
        "False",
        "tests/auth/test_tokens.py",
    ),
    Guard(
        "an approval must be worth what policy asks for",
        "cra_mcp/gate/approving.py",
        'asked.status == "granted" and is_enough(asked.grade, least)',
        'asked.status == "granted"',
        "tests/gate/test_approvals.py",
    ),
    Guard(
        "the signature of a checkpoint is verified",
        "cra_mcp/trace/checkpoint.py",
        "if not key.has_signed(self.text, signature.signature):",
        "if False:",
        "tests/trace/test_checkpoint.py",
    ),
    Guard(
        "a key speaks for sessions of its own name only",
        "cra_mcp/trace/checkpoint.py",
        'if self.checkpoint.origin != origin_of(signer.name, self.checkpoint.session_id or ""):',
        "if False:",
        "tests/trace/test_checkpoint.py",
    ),
    Guard(
        "Base64 has one form",
        "cra_mcp/trace/checkpoint.py",
        "if encode(data) != text:",
        "if False:",
        "tests/trace/test_checkpoint.py",
    ),
    Guard(
        "a signing key that others can read is refused",
        "cra_mcp/trace/keyfile.py",
        "status.st_mode & 0o077 or ",
        "",
        "tests/trace/test_keyfile.py",
    ),
    Guard(
        "nothing is signed that contradicts what was signed before",
        "cra_mcp/trace/checkpointing.py",
        "if not agrees and not _is(before, tree):",
        "if False:",
        "tests/trace/test_checkpointing.py",
    ),
    Guard(
        "what is signed is on disk",
        "cra_mcp/trace/checkpointing.py",
        " or not (ended or self._is_on_disk(log))",
        "",
        "tests/trace/test_checkpointing.py",
    ),
    Guard(
        "a trace is compared with the root that was signed",
        "cra_mcp/trace/diagnosis.py",
        "if tree.root() != checkpoint.root:",
        "if False:",
        "tests/trace/test_diagnosis.py",
    ),
    Guard(
        "a trace that ends before a checkpoint is truncated",
        "cra_mcp/trace/diagnosis.py",
        "if checkpoint.size > len(lines):",
        "if False:",
        "tests/trace/test_diagnosis.py",
    ),
    Guard(
        "checkpoints of other sessions show nothing",
        "cra_mcp/faces/cli/evidence.py",
        'if not found and fault is None and source == "outside":',
        "if False:",
        "tests/faces/cli/test_checkpoints.py",
    ),
    Guard(
        "a proof is of an event at its own place",
        "cra_mcp/trace/proof.py",
        "if (event.session_id, event.sequence) != (checkpoint.session_id, index):",
        "if False:",
        "tests/trace/test_checkpoint_vectors.py",
    ),
    Guard(
        "a proof's hashes lead to the root",
        "cra_mcp/trace/merkle.py",
        "return last == 0 and found == root",
        "return True",
        "tests/trace/test_merkle.py",
    ),
    Guard(
        "a copy of a checkpoint is never replaced by another",
        "cra_mcp/trace/sinks.py",
        "if path.read_bytes() != note:",
        "if False:",
        "tests/trace/test_sinks.py",
    ),
    Guard(
        "programs that take checkpoints don't inherit the key",
        "cra_mcp/trace/sinks.py",
        " for key in environ if key not in {AUTHORIZATION, *hidden}",
        " for key in environ",
        "tests/trace/test_sinks.py",
    ),
    Guard(
        "a timestamp is of the checkpoint it stands in",
        "cra_mcp/trace/timestamp.py",
        "if found.hash_algorithm.dotted_string != _SHA256 or found.message != imprint:",
        "if False:",
        "tests/trace/test_timestamp.py",
    ),
    Guard(
        "a timestamp answers the request it came for",
        "cra_mcp/trace/timestamp.py",
        "if nonce != query.nonce:",
        "if False:",
        "tests/trace/test_timestamp.py",
    ),
    Guard(
        "certificates of an authority were valid when it signed",
        "cra_mcp/trace/timestamp.py",
        "if not each.not_valid_before_utc <= time <= each.not_valid_after_utc:",
        "if False:",
        "tests/trace/test_timestamp.py",
    ),
    Guard(
        "an authority that is not vouched for is not kept",
        "cra_mcp/trace/timestamping.py",
        "            if self._authorities:\n",
        "            if False:\n",
        "tests/trace/test_timestamping.py",
    ),
    Guard(
        "a service's answer is read to a bound",
        "cra_mcp/trace/posting.py",
        "if len(data) > max_bytes:",
        "if False:",
        "tests/trace/test_timestamping.py",
    ),
    Guard(
        "a failed flush is not forgiven by the next that succeeds",
        "cra_mcp/trace/chainfile.py",
        "            if self._fault is not None:  # the system reports a loss once: a flush that succeeds now says nothing\n",
        "            if False:\n",
        "tests/trace/test_faults.py",
    ),
    Guard(
        "what a failed flush may have lost is written again",
        "cra_mcp/trace/chainfile.py",
        "                write_all(self._disk, fd, data)\n",
        "                pass\n",
        "tests/trace/test_faults.py",
    ),
    Guard(
        "a write that failed is taken back",
        "cra_mcp/trace/chainfile.py",
        "self._disk.truncate(opened.fd, end)",
        "pass",
        "tests/trace/test_faults.py",
    ),
    Guard(
        "a lock whose file is gone is not taken",
        "cra_mcp/trace/claim.py",
        "if _is_at(fd, path):",
        "if True:",
        "tests/trace/test_file_store.py -k removes_meanwhile",
    ),
    Guard(
        "nothing is pruned that does not verify",
        "cra_mcp/trace/statement.py",
        "if code is not None and not rule.damaged:",
        "if False:",
        "tests/trace/test_retention.py",
    ),
    Guard(
        "a statement deletes only what it describes",
        "cra_mcp/trace/retention.py",
        "if fingerprint_of(directory, directory / name) == file:",
        "if True:",
        "tests/trace/test_retention.py",
    ),
    Guard(
        "what contradicts its checkpoints is not pruned",
        "cra_mcp/trace/statement.py",
        "code = check.code or watched.fault(check)",
        "code = check.code",
        "tests/trace/test_retention.py",
    ),
    Guard(
        "an event without its line feed is none where another file follows",
        "cra_mcp/trace/segments.py",
        'line.endswith(b"\\n") else line + _TORN',
        'line.endswith(b"\\n") else line',
        "tests/trace/test_segments.py -k cut_anywhere",
    ),
    Guard(
        "an unsigned statement accounts for no trace",
        "cra_mcp/trace/statement.py",
        "if signer is None or not is_signed:",
        "if signer is None:",
        "tests/trace/test_pruned_traces.py",
    ),
    Guard(
        "a statement of fewer events than were signed accounts for no trace",
        "cra_mcp/trace/statement.py",
        "if checkpoint.size > self.events:",
        "if False:",
        "tests/trace/test_pruned_traces.py",
    ),
    Guard(
        "a chain that was pruned is not begun again",
        "cra_mcp/trace/file.py",
        "if statement_path(self._directory, session_id).exists():  # not before",
        "if False:  # not before",
        "tests/trace/test_retention.py",
    ),
    Guard(
        "a database another process writes is not pruned",
        "cra_mcp/trace/sqlite_retention.py",
        "claim = None if dry_run else claim_database(path)",
        "claim = None",
        "tests/trace/test_sqlite_retention.py",
    ),
    Guard(
        "an atlas that is taken into use while it is taken out is put back",
        "cra_mcp/atlas/archive_upkeep.py",
        "if aside.stat().st_mtime_ns >= moment_ns:",
        "if False:",
        "tests/trace/test_leftovers.py",
    ),
    Guard(
        "atlases stay while a database that needs them is not there",
        "cra_mcp/trace/leftovers.py",
        "    if missing:",
        "    if False:",
        "tests/trace/test_leftovers.py",
    ),
    Guard(
        "an atlas adds to what the operator hides and takes nothing away",
        "cra_mcp/trace/detect/detectors.py",
        "Detectors(self._scanner.detectors | names,",
        "Detectors(names,",
        "tests/trace/test_redacting.py -k atlas",
    ),
    Guard(
        "an extension's own word for its action does not choose what is hidden",
        "cra_mcp/trace/redacting.py",
        "        fields, action_id = _FIELDS.get(event_type), None",
        '        fields, action_id = _FIELDS.get(event_type), dict(payload).get("action_id")',
        "tests/trace/test_redacting.py -k atlas",
    ),
    Guard(
        "an index is asked where to look and not believed",
        "cra_mcp/faces/cli/finding.py",
        "if any(_is(line, what) for line in store.read(session_id, after=sequence - 1, limit=1)):",
        "if True:",
        "tests/trace/test_index_source.py",
    ),
    Guard(
        "an atlas can't lower what the operator asks for",
        "cra_mcp/gate/gate.py",
        '(least == "risk" and by_risk)',
        "False",
        "tests/gate/test_durability.py",
    ),
    Guard(
        "words somebody wrote don't pass for fields",
        "cra_mcp/trace/search.py",
        'yield f"{column} = ?", value',
        'yield "? IS NOT NULL", value',
        "tests/trace/test_index.py -k pass_for_fields",
    ),
    Guard(
        "nobody settles the approval of their own call",
        "cra_mcp/access.py",
        "        if not self.may_settle(approval):\n",
        "        if False:\n",
        "tests/access",
    ),
    Guard(
        "nobody settles what is another tenant's",
        "cra_mcp/access.py",
        "        if not self._concerns(approval):\n",
        "        if False:\n",
        "tests/access",
    ),
    Guard(
        "an answer from elsewhere must be worth what policy asks for",
        "cra_mcp/gate/approving.py",
        'settled.status == "granted" and is_enough(settled.grade, least)',
        'settled.status == "granted"',
        "tests/gate/test_elsewhere.py",
    ),
    Guard(
        "a no takes back a yes that was not used",
        "cra_mcp/faces/mcp/approvals.py",
        "        if not granted:\n            runtime.withdraw_approval",
        "        if False:\n            runtime.withdraw_approval",
        "tests/faces/mcp/test_approved_elsewhere.py",
    ),
    Guard(
        "a control tool exists for those only whose roles permit it",
        "cra_mcp/faces/mcp/control.py",
        "return tool is not None and self._is_for(principal_of(ctx), tool)",
        "return tool is not None",
        "tests/faces/mcp/test_control_tools.py",
    ),
    Guard(
        "a document is read where its conditions hold",
        "cra_mcp/faces/mcp/resources.py",
        "known = self._runtime.context(principal_of(ctx))",
        "known = tuple(block for atlas in self._runtime.atlases() for block in atlas.context_blocks)",
        "tests/faces/mcp/test_control_tools.py",
    ),
    Guard(
        "a trace is watched by who may read it",
        "cra_mcp/faces/mcp/watchable.py",
        " if access.may_read(session_id)}",
        "}",
        "tests/faces/mcp/test_listening.py",
    ),
    Guard(
        "what waits for approval is watched by approvers",
        "cra_mcp/faces/mcp/watchable.py",
        "if control_approvals.URI in uris and access.may_approve:",
        "if control_approvals.URI in uris:",
        "tests/faces/mcp/test_control_tools.py",
    ),
    Guard(
        "a stream ends with its credential",
        "cra_mcp/faces/mcp/http/identity.py",
        "while await _authenticated(authenticator, scope) == principal:",
        "while True:",
        "tests/faces/http/test_listening.py",
    ),
)


def sabotage(guard: Guard, tree: Path) -> bool:
    """Whether the tests notice that a guard is gone."""
    path = tree / guard.file
    whole = path.read_text()
    if whole.count(guard.old) != 1:
        raise SystemExit(f"{guard.file}: the guard {guard.what!r} is not there exactly once")
    path.write_text(whole.replace(guard.old, guard.new))
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                "-m",
                "not long",
                *guard.tests.split(),
            ],
            cwd=tree,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        path.write_text(whole)
    return done.returncode == 1


def main() -> int:
    """Try every guard; the exit code is 1 if one is not missed."""
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(
            "node_modules", ".venv", ".git", "__pycache__", ".bench-venv", ".chromium", ".environments"
        )
        shutil.copytree(ROOT, tree, ignore=ignored)
        for guard in GUARDS:
            noticed = sabotage(guard, tree)
            missed += not noticed
            sys.stdout.write(f"{'noticed ' if noticed else 'NOT SEEN'}  {guard.what}  ({guard.tests})\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(GUARDS) - missed} guards noticed, {missed} not\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
