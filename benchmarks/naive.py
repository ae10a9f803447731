"""The baseline of the comparison: the same routes in thirty lines of Flask and redis-py, without guarantees.

`/none` is the push route without Redis: the cost of Flask and gunicorn alone. REDIS_URL names the server.
"""

import os
from typing import Any

import redis
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
client: Any = redis.Redis.from_url(os.environ["REDIS_URL"])


@app.post("/push")
def push() -> Response:
    message = request.json["message"] if request.is_json else request.form["message"]
    count = client.lpush("queue:naive", message)
    return jsonify(success=True, message=message, count=count)


@app.post("/pop")
def pop() -> Response:
    message = client.rpop("queue:naive")
    return jsonify(success=message is not None, message=message and message.decode())


@app.post("/none")
def none() -> Response:
    message = request.json["message"] if request.is_json else request.form["message"]
    return jsonify(success=True, message=message, count=1)
