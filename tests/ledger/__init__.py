"""A ledger of a busy queue: which process pushed, received and acked each message, while anything can fail.

Producers and consumers are processes that use this app over HTTP (one consumer uses broker.consumer.consume), with two
gunicorn workers, and a proxy between them and Valkey. Consumers, workers and the store are killed with SIGKILL and
replaced, replies are lost, connections dropped; clients disconnect before they have read an answer, or hold a lease too
long. Each process writes a line to its own file before and after every operation, so a killed one leaves its lines too.

    python -m tests.ledger     a long run; SOAK_MESSAGES, SOAK_EVENTS (disasters) and SOAK_CONSUMERS set its size
"""

from tests.ledger.api import Api

__all__ = ["Api"]
