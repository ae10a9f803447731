"""The workers of the shop: `python workers.py charges`, `... mails` and `... pictures`."""

import base64
import io
import logging
import sys
from concurrent.futures import ProcessPoolExecutor

import outside
from PIL import Image, UnidentifiedImageError
from seequeue import Message, Queue, Reject

mails = Queue("mails")


@Queue("charges").worker(concurrency=8, lease=10, retry_delay=1)
def charge(message: Message) -> str:
    order = message.json()
    try:
        receipt = outside.charge(order["job"], order["card"])
    except outside.Declined as error:
        raise Reject(str(error)) from error
    mails.push({"order": order["job"], "to": order["to"], "text": receipt}, key=f"receipt-{order['job']}")
    return receipt


@mails.worker(batch=10, lease=10, retry_delay=1)
def mail(messages: list[Message]) -> None:
    outside.send([message.json() for message in messages])


@Queue("pictures").worker(concurrency=2, lease=10, executor=ProcessPoolExecutor)
def shrink(message: Message) -> bytes:
    proof = io.BytesIO()
    try:
        with Image.open(io.BytesIO(base64.b64decode(message.json()["picture"]))) as picture:
            picture.thumbnail((160, 160))
            picture.convert("RGB").save(proof, "PNG")
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise Reject("not a picture") from error
    return proof.getvalue()


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    {"charges": charge, "mails": mail, "pictures": shrink}[sys.argv[1]].run()
