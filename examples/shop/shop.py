"""A shop that prints pictures on mugs. It only enqueues: the workers charge, mail, and make the proofs."""

import base64
import uuid
from typing import Any

from flask import Flask, Response, abort, redirect, render_template, request, url_for
from seequeue import JobFailed, Queue

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 700_000  # bytes; a message holds 1 MiB, and base64 makes it larger by a third
charges, pictures = Queue("charges"), Queue("pictures")


@app.get("/")
def form() -> str:
    return render_template("shop.html", job=uuid.uuid4())


@app.post("/orders")
def place_order() -> Any:
    job = request.form["job"]  # it came with the form, so a form that is sent twice is one order
    picture = base64.b64encode(request.files["picture"].read()).decode()
    pictures.push({"job": job, "picture": picture}, key=f"picture-{job}")
    charges.push({"job": job, "to": request.form["to"], "card": request.form["card"]}, key=f"charge-{job}")
    return redirect(url_for("show_order", job=job), 303)


@app.get("/orders/<job>")
def show_order(job: str) -> str:
    return render_template("shop.html", job=job, payment=state_of(charges, job), proof=state_of(pictures, job))


@app.get("/orders/<job>/proof.png")
def show_proof(job: str) -> Response:
    return Response(pictures.result(job) or abort(404), mimetype="image/png")


def state_of(queue: Queue, job: str) -> str:
    try:
        return "done" if queue.result(job) else "waiting"
    except JobFailed as error:
        return f"failed: {error.message}"
