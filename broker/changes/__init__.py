"""Changes that Redis reports without being polled."""
