"""The old app: all of the shop, in Flask. It stays as it is while its routes move."""

import os
import secrets
from dataclasses import asdict

from flask import Flask, Response, abort, redirect, request, session, url_for
from werkzeug import Response as AnyResponse

from examples.flask_to_fastapi.shop import orders

app = Flask(__name__)
# Several workers need the same key, which is a secret of the site.
app.secret_key = os.environ.get("SHOP_SECRET_KEY") or secrets.token_hex()
FORM = '<form method="post"><input name="name" placeholder="your name"><button>log in</button></form>'


@app.get("/")
def front() -> str:
    name = session.get("user")
    greeting = f"<p>hello, {name}</p>" if name else f'<p><a href="{url_for("login")}">log in</a></p>'
    return f'<!doctype html><title>The shop</title>{greeting}<p><a href="/orders">orders</a></p>'


@app.route("/login", methods=["GET", "POST"])
def login() -> AnyResponse:
    if request.method == "GET":
        return Response(FORM)
    name = request.form.get("name", "")
    if not name.isalpha():
        abort(400, "a name has letters only")
    session["user"] = name
    return redirect(url_for("front"), 303)


@app.post("/logout")
def logout() -> AnyResponse:
    session.clear()
    return redirect(url_for("front"), 303)


@app.get("/orders")
def list_orders() -> list[dict[str, object]]:
    return [asdict(order) for order in orders.all()]


@app.post("/orders")
def add_order() -> tuple[dict[str, object], int]:
    if "user" not in session:
        abort(401)
    order = orders.add(session["user"], request.form["item"], int(request.form["quantity"]))
    return asdict(order), 201


@app.get("/orders/<int:order_id>")
def show_order(order_id: int) -> dict[str, object]:
    order = orders.maybe_get(order_id)
    return asdict(order) if order else abort(404, "no such order")
