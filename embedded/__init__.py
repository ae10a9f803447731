"""The Valkey server that runs when no REDIS_URL is set."""
