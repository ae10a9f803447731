"""The operations, written once for both kinds of queues: generators that yield what they need, without any I/O."""
