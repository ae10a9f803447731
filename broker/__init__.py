"""The Redis layer: queues with their keys and scripts, connections, and change notifications."""
