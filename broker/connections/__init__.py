"""Connections to one server, Sentinels or a Cluster: pooling, batching, failover and a circuit breaker."""
