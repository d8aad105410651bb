"""What both apps share: the orders. A real shop has a database in this place."""

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """One order, as both apps show it."""

    id: int
    customer: str
    item: str
    quantity: int


class Orders:
    """All orders of this process; both apps may use it from any of their threads."""

    def __init__(self) -> None:
        self._orders = [Order(1, "ada", "punched cards", 500), Order(2, "grace", "a moth", 1)]
        self._changes = threading.Lock()

    def all(self) -> list[Order]:
        return list(self._orders)

    def maybe_get(self, order_id: int) -> Order | None:
        return next((order for order in self._orders if order.id == order_id), None)

    def add(self, customer: str, item: str, quantity: int) -> Order:
        with self._changes:
            order = Order(len(self._orders) + 1, customer, item, quantity)
            self._orders.append(order)
        return order


orders = Orders()
