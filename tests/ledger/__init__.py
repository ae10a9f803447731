"""A ledger of a busy queue: which process pushed, received and acked each message, while anything can fail.

Producers and consumers are processes that use this app over HTTP (one consumer uses the Python client), with two
gunicorn workers. They disconnect before they have read an answer, or hold a lease too long. Each writes a line to its
own file before and after every operation, so a killed one leaves its lines too. There are three worlds (worlds.py):

    store       a Valkey behind a proxy: it is killed, its clock is set, replies are lost and connections dropped
    embedded    the server that the app starts: it and its supervisor are killed
    sentinels   a primary that planned failovers replace; what is acknowledged during one may be lost

In all of them consumers and workers are killed, the app is reloaded, its processes get SIGTERM or SIGKILL all at once,
the disk that holds their counters is full, and their log is full or closed. In the first two everything is paused.
Meanwhile a process tidies up: it pauses, moves, clears, removes and restores, and changes limits (mix.py).

    python -m tests.ledger     a long run: SOAK_MESSAGES, SOAK_EVENTS (disasters) and SOAK_CONSUMERS set its size,
                               SOAK_WORLDS (separated by commas) its worlds, SOAK_SEED the order of the disasters
"""

from tests.ledger.api import Api

__all__ = ["Api"]
