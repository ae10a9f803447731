"""Summaries of messages of other programs: a module for each shape, and one table of them."""

from broker.summaries.parts import TIMES, Summary
from broker.summaries.shapes import MAX_READ, shape_of, summarize

__all__ = ["MAX_READ", "TIMES", "Summary", "shape_of", "summarize"]
