"""How Redis is reached: one server, Sentinels or a Cluster, and what to do when it does not respond."""
