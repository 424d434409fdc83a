import pytest

from cra_mcp.policy.compiler import default_effect, policy_from_manifest
from cra_mcp.policy.counters import Counters
from cra_mcp.policy.engine import compile_policies
from cra_mcp.policy.model import ActionFacts, Facts
from tests.policy import oracle as literal

MONDAY_NOON_US = 1_767_614_400_000_000  # 2026-01-05T12:00:00Z


@pytest.fixture(scope="session")
def oracle():
    return literal


class Desk:
    """A policy set with counters, asked in a line or two."""

    def __init__(self, policies, actions, default):
        self.policies = [policy_from_manifest(policy, order) for order, policy in enumerate(policies)]
        self.actions = [action if isinstance(action, ActionFacts) else ActionFacts(action) for action in actions]
        self.engine = compile_policies(self.policies, self.actions, default_effect(self.policies, default))
        self.counters = Counters()

    def decide(self, action_id="ticket.read", *, at=MONDAY_NOON_US, approved=False, **facts):
        return self.engine.decide(action_id, who(**facts), self.counters, at, approved=approved)

    def call(self, action_id="ticket.read", *, at=MONDAY_NOON_US, **facts):
        """Decide, and charge if allowed."""
        decision = self.decide(action_id, at=at, **facts)
        if decision.effect == "allow":
            assert self.counters.take(decision.limits, who(**facts), at)
        return decision


def who(agent_id="bot", session_id="s1", **rest):
    return Facts(agent_id=agent_id, session_id=session_id, **rest)


@pytest.fixture
def desk():
    """Make a desk of policies in manifest form."""

    def make(*policies, actions=("ticket.read", "ticket.delete"), default=None):
        return Desk(policies, actions, default)

    return make


@pytest.fixture
def facts():
    return who
