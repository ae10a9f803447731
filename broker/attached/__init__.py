"""Lists of other programs on the same Redis: which they are, and how to read them without changing anything."""
