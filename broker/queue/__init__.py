"""A RedisQueue with leases, delays, retries, dead letters, idempotency keys and results.

Each change of state is one script in `broker/lua`, or one command, so it happens entirely or not at all. A long
operation makes one for each batch. The scripts read the time from Redis, and all keys of a queue share one Cluster
slot. They need Redis 6.2 or Valkey.
"""

from broker.queue.push import PushOperations
from broker.queue.reasons import ReasonOperations
from broker.queue.settle import SettleOperations
from broker.queue.take import TakeOperations
from broker.queue.tidy import TidyOperations


class ReliableQueue(PushOperations, TakeOperations, SettleOperations, TidyOperations, ReasonOperations):
    """All operations of a queue. A message that fails its `max_deliveries`-th delivery becomes a dead letter."""
