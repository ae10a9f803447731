"""The command `seequeue`. Nothing else of the package imports it, nor click."""

from seequeue.command import following, messages, other, queues, tidying, transfer, watching, working
from seequeue.command.base import cli, main

__all__ = ["cli", "following", "main", "messages", "other", "queues", "tidying", "transfer", "watching", "working"]
