"""What knows Redis: queues, their keys and scripts, the client, and the loop of a consumer."""
