"""A small support desk: tickets, customers, orders and refunds in one SQLite file.

The file is ``CRA_SUPPORT_DB``, or ``customer-support.sqlite3`` in the data folder of cra-mcp. The first call makes and fills it.
Each function is one action; it returns what the action's ``returns_schema`` says, ``error`` included.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

JSON = dict[str, object]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS customers (
  number INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, country TEXT NOT NULL, since TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS orders (
  number INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers ON DELETE CASCADE, item TEXT NOT NULL,
  amount_cents INTEGER NOT NULL, currency TEXT NOT NULL, purchased_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS tickets (
  number INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers ON DELETE CASCADE, subject TEXT NOT NULL,
  body TEXT NOT NULL, status TEXT NOT NULL, priority TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS notes (
  number INTEGER PRIMARY KEY, ticket INTEGER NOT NULL REFERENCES tickets ON DELETE CASCADE, body TEXT NOT NULL,
  created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS refunds (
  number INTEGER PRIMARY KEY, "order" INTEGER NOT NULL REFERENCES orders ON DELETE CASCADE, amount_cents INTEGER NOT NULL,
  reason TEXT NOT NULL, created_at TEXT NOT NULL
);
"""

_CUSTOMERS = [
    (1001, "Ada Novak", "ada.novak@example.com", "CZ", "2023-02-11T09:00:00Z"),
    (1002, "Bilal Haddad", "bilal.haddad@example.com", "FR", "2024-06-30T14:20:00Z"),
    (1003, "Carmen Ortiz", "carmen.ortiz@example.com", "ES", "2025-01-19T18:45:00Z"),
]
_ORDERS = [
    (3001, 1001, "Ceramic teapot", 4900, "EUR", "2026-10-28T10:05:00Z"),
    (3002, 1001, "Linen tablecloth", 3250, "EUR", "2026-06-02T16:30:00Z"),
    (3003, 1002, "Desk lamp", 7990, "EUR", "2026-11-04T08:12:00Z"),
    (3004, 1003, "Set of six glasses", 2400, "EUR", "2026-11-12T20:01:00Z"),
]
_TICKETS = [
    (2001, 1001, "Refund for a broken teapot", "The teapot arrived with a cracked lid. I would like a refund.", "open",
     "normal", "2026-11-18T09:30:00Z"),
    (2002, 1002, "Lamp flickers", "The lamp flickers after an hour. Can it be exchanged?", "pending", "normal",
     "2026-11-17T13:05:00Z"),
    (2003, 1003, "Where are my glasses?", "Ordered last week, no message from the carrier yet.", "open", "low",
     "2026-11-19T07:55:00Z"),
    (2004, 1001, "Invoice with company address", "Please send the invoice again with our company address.", "closed",
     "low", "2026-06-05T11:00:00Z"),
]  # fmt: skip


def search_tickets(
    query: str | None = None, status: str | None = None, customer_id: str | None = None, limit: int = 20
) -> JSON:
    """Find tickets; every word of ``query`` must occur in subject or text."""
    conditions, values = ["1"], list[object]()
    for word in (query or "").split():
        conditions.append("(subject || ' ' || body) LIKE ? ESCAPE '\\'")
        values.append(_containing(word))
    if status is not None:
        conditions.append("status = ?")
        values.append(status)
    if customer_id is not None:
        conditions.append("customer = ?")
        values.append(_number(customer_id))
    with _database() as database:
        rows = database.execute(
            f"SELECT * FROM tickets WHERE {' AND '.join(conditions)} ORDER BY updated_at DESC, number LIMIT ?",  # noqa: S608
            (*values, limit + 1),
        ).fetchall()
    return {"tickets": [_summary(row) for row in rows[:limit]], "more": len(rows) > limit}


def get_ticket(ticket_id: str) -> JSON:
    """Read a ticket with its notes."""
    with _database() as database:
        return _ticket(database, _number(ticket_id))


def create_ticket(customer_id: str, subject: str, body: str, priority: str = "normal") -> JSON:
    """Open a ticket."""
    now = _now()
    with _database() as database:
        if not _exists(database, "customers", _number(customer_id)):
            return _missing("customer", customer_id)
        cursor = database.execute(
            "INSERT INTO tickets (customer, subject, body, status, priority, created_at, updated_at) "
            "VALUES (?, ?, ?, 'open', ?, ?, ?)",
            (_number(customer_id), subject, body, priority, now, now),
        )
        return _ticket(database, int(cursor.lastrowid or 0))


def update_ticket(
    ticket_id: str, status: str | None = None, priority: str | None = None, note: str | None = None
) -> JSON:
    """Change a ticket; what is not given stays."""
    number = _number(ticket_id)
    with _database() as database:
        if not _exists(database, "tickets", number):
            return _missing("ticket", ticket_id)
        database.execute(
            "UPDATE tickets SET status = coalesce(?, status), priority = coalesce(?, priority), updated_at = ? "
            "WHERE number = ?",
            (status, priority, _now(), number),
        )
        if note is not None:
            database.execute("INSERT INTO notes (ticket, body, created_at) VALUES (?, ?, ?)", (number, note, _now()))
        return _ticket(database, number)


def close_ticket(ticket_id: str, resolution: str) -> JSON:
    """Close a ticket, with a note that says how."""
    return update_ticket(ticket_id, status="closed", note=f"Closed: {resolution}")


def delete_ticket(ticket_id: str) -> JSON:
    """Remove a ticket. Policy keeps agents from calling this."""
    return _delete("tickets", "ticket", ticket_id)


def search_customers(query: str, limit: int = 20) -> JSON:
    """Find customers by a part of name or e-mail address."""
    with _database() as database:
        rows = database.execute(
            "SELECT * FROM customers WHERE name LIKE ? ESCAPE '\\' OR email LIKE ? ESCAPE '\\' ORDER BY number LIMIT ?",
            (_containing(query), _containing(query), limit + 1),
        ).fetchall()
    found = [{"customer_id": f"C-{row['number']}", "name": row["name"], "country": row["country"]} for row in rows]
    return {"customers": found[:limit], "more": len(rows) > limit}


def get_customer(customer_id: str) -> JSON:
    """Read a customer with orders and open tickets."""
    number = _number(customer_id)
    with _database() as database:
        row = database.execute("SELECT * FROM customers WHERE number = ?", (number,)).fetchone()
        if row is None:
            return _missing("customer", customer_id)
        orders = database.execute(
            'SELECT orders.*, (SELECT coalesce(sum(amount_cents), 0) FROM refunds WHERE "order" = orders.number) AS refunded '
            "FROM orders WHERE customer = ? ORDER BY number",
            (number,),
        ).fetchall()
        tickets = database.execute(
            "SELECT * FROM tickets WHERE customer = ? AND status <> 'closed' ORDER BY number", (number,)
        ).fetchall()
    return {
        "customer": {
            "customer_id": customer_id,
            "name": row["name"],
            "email": row["email"],
            "country": row["country"],
            "since": row["since"],
            "orders": [
                {
                    "order_id": f"O-{order['number']}",
                    "item": order["item"],
                    "amount_cents": order["amount_cents"],
                    "refunded_cents": order["refunded"],
                    "currency": order["currency"],
                    "purchased_at": order["purchased_at"],
                }
                for order in orders
            ],
            "open_tickets": [_summary(ticket) for ticket in tickets],
        }
    }


def delete_customer(customer_id: str) -> JSON:
    """Remove a customer and all that is theirs. Policy keeps agents from calling this."""
    return _delete("customers", "customer", customer_id)


def export_customers() -> JSON:
    """All customers. Policy hides this from agents."""
    with _database() as database:
        rows = database.execute("SELECT * FROM customers ORDER BY number").fetchall()
    return {"customers": [dict(row) for row in rows]}


def create_refund(order_id: str, amount_cents: int, reason: str) -> JSON:
    """Pay back a part of an order, never more than is left of it."""
    number = _number(order_id)
    with _database() as database:
        order = database.execute("SELECT * FROM orders WHERE number = ?", (number,)).fetchone()
        if order is None:
            return _missing("order", order_id)
        (refunded,) = database.execute(
            'SELECT coalesce(sum(amount_cents), 0) FROM refunds WHERE "order" = ?', (number,)
        ).fetchone()
        left = order["amount_cents"] - refunded
        if amount_cents > left:
            return {"error": {"code": "too_much", "message": f"{left} cents are left to refund of {order_id}"}}
        now = _now()
        cursor = database.execute(
            'INSERT INTO refunds ("order", amount_cents, reason, created_at) VALUES (?, ?, ?, ?)',
            (number, amount_cents, reason, now),
        )
    return {
        "refund": {
            "refund_id": f"R-{cursor.lastrowid}",
            "order_id": order_id,
            "amount_cents": amount_cents,
            "currency": order["currency"],
            "reason": reason,
            "created_at": now,
        }
    }


def _path() -> Path:
    configured = os.environ.get("CRA_SUPPORT_DB")
    if configured:
        return Path(configured)
    import platformdirs  # noqa: PLC0415 - only where no path is given

    return platformdirs.user_data_path("cra-mcp", appauthor=False) / "customer-support.sqlite3"


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    """One transaction; the write lock is taken at once, so that what is read still holds when something is written."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as database:
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("BEGIN IMMEDIATE")
        try:
            _fill_if_new(database)
            yield database
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")


def _fill_if_new(database: sqlite3.Connection) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version:
        return
    for statement in _SCHEMA.split(";\n"):
        database.execute(statement)
    database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", _CUSTOMERS)
    database.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", _ORDERS)
    database.executemany(
        "INSERT INTO tickets VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [(*ticket, ticket[-1]) for ticket in _TICKETS]
    )
    database.execute("PRAGMA user_version = 1")


def _ticket(database: sqlite3.Connection, number: int) -> JSON:
    row = database.execute("SELECT * FROM tickets WHERE number = ?", (number,)).fetchone()
    if row is None:
        return _missing("ticket", f"T-{number}")
    notes = database.execute(
        "SELECT body, created_at FROM notes WHERE ticket = ? ORDER BY number", (number,)
    ).fetchall()
    return {
        "ticket": {
            **_summary(row),
            "body": row["body"],
            "created_at": row["created_at"],
            "notes": [dict(note) for note in notes],
        }
    }


def _summary(row: sqlite3.Row) -> JSON:
    return {
        "ticket_id": f"T-{row['number']}",
        "customer_id": f"C-{row['customer']}",
        "subject": row["subject"],
        "status": row["status"],
        "priority": row["priority"],
        "updated_at": row["updated_at"],
    }


def _delete(table: str, noun: str, identifier: str) -> JSON:
    with _database() as database:
        cursor = database.execute(f"DELETE FROM {table} WHERE number = ?", (_number(identifier),))  # noqa: S608 - ours
        return {"deleted": identifier} if cursor.rowcount else _missing(noun, identifier)


def _exists(database: sqlite3.Connection, table: str, number: int) -> bool:
    return database.execute(f"SELECT 1 FROM {table} WHERE number = ?", (number,)).fetchone() is not None  # noqa: S608


def _missing(noun: str, identifier: str) -> JSON:
    return {"error": {"code": "not_found", "message": f"there is no {noun} {identifier}"}}


def _number(identifier: str) -> int:
    return int(identifier.split("-", 1)[1])


def _containing(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
