"""The new app, in FastAPI: what has moved so far, and what only it has."""

from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from flask import session

from bridge.migration import environ_for
from examples.flask_to_fastapi import legacy
from examples.flask_to_fastapi.shop import Order, orders

# The docs pages of FastAPI would hide what the old app may have at /docs.
app = FastAPI(title="The shop", docs_url="/api/docs", redoc_url=None, openapi_url="/api/openapi.json")


def current_user(request: Request) -> str:
    """Return who has logged in at the old app. A `def` dependency runs in a thread, as reading a session may block."""
    with legacy.app.request_context(environ_for(request.scope)):
        if "user" not in session:
            raise HTTPException(401, "log in at /login")
        return str(session["user"])


@app.get("/orders")
async def list_orders() -> list[Order]:
    return orders.all()


@app.get("/orders/{order_id}")
async def show_order(order_id: int) -> Order:
    order = orders.maybe_get(order_id)
    if order is None:
        raise HTTPException(404, "no such order")
    return order


@app.get("/me")
async def me(user: Annotated[str, Depends(current_user)]) -> dict[str, object]:
    return {"user": user, "orders": [order for order in orders.all() if order.customer == user]}
