"""Summaries of messages of other programs: a module for each shape, and one table of them."""

from broker.summaries.parts import TIMES, Summary
from broker.summaries.shapes import shape_of, summarize

__all__ = ["TIMES", "Summary", "shape_of", "summarize"]
