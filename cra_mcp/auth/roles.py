"""What roles may do.

Rule: whatever no role of a principal names it may not do. No role reaches beyond its tenant. Source: specs/identity.md, "Roles".
"""

from collections.abc import Mapping
from typing import Literal, get_args

from cra_mcp.auth.principal import Principal, Role
from cra_mcp.errors import ForbiddenError

Permission = Literal[
    "call", "approve", "read_own", "read_tenant", "read_metrics", "manage_atlases", "manage_keys", "freeze"
]

ROLES: tuple[Role, ...] = get_args(Role)
PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    "agent": frozenset({"call", "read_own"}),
    "approver": frozenset({"approve", "read_own"}),
    "auditor": frozenset({"read_own", "read_tenant"}),
    "operator": frozenset({"call", "approve", "read_own", "read_tenant", "read_metrics", "manage_atlases", "freeze"}),
    "admin": frozenset(get_args(Permission)),
}
"""Permissions of each role:

``call``: start sessions and call actions. ``approve``: see and settle approvals of the tenant. ``read_own``: traces of own
sessions. ``read_tenant``: all traces of the tenant. ``read_metrics``: totals of the whole server, every tenant's.
``manage_atlases``, ``manage_keys``, ``freeze``: as their names say.
"""


def may(principal: Principal, permission: Permission) -> bool:
    """Whether one of the principal's roles has a permission."""
    return any(permission in PERMISSIONS[role] for role in principal.roles)


def require(principal: Principal, permission: Permission) -> None:
    """Refuse a principal without a permission.

    Raises:
        ForbiddenError: none of its roles has it.
    """
    if not may(principal, permission):
        roles = ", ".join(role for role in ROLES if permission in PERMISSIONS[role])
        raise ForbiddenError(
            f"none of your roles may do this ({permission})",
            hint=f"ask for one of the roles {roles}, or use another key",
        )


def roles_of(names: object) -> frozenset[Role]:
    """The roles among ``names``, a list of strings; what is no role is left out, so that it grants nothing."""
    if not isinstance(names, list | tuple | set | frozenset):
        return frozenset()
    return frozenset(role for role in ROLES if role in names)
