"""Which lists are attached, and under which names.

A key that is a valid name of a queue is its own name; one under QUEUE_PREFIX has the name of its queue. In any other
key, `\\x06\\x16`, with which Celery marks a priority, becomes "-priority-", and other characters that a name cannot
have become "-".
"""

import re
from dataclasses import dataclass

from broker.keys import NAME_RULE, is_name

MAX_NAME = 128
EVERY_LIST = "*"
LEFT = "@left"
PRIORITY_MARK = "\x06\x16"  # kombu's separator of a list and its priority
PRIORITIES = (3, 6, 9)  # kombu's priority_steps; 0 is the list itself
_OTHER_END = re.compile(r"@(?:l|r|$)[a-z]*$", re.IGNORECASE)  # a misspelled @left
FROM_THE_LEFT = re.compile(r"(?:.*:)?(?:resque:queue|queues):[^:]+")  # Resque and Laravel


@dataclass(frozen=True)
class AttachedList:
    """A list of another program, and its name as a queue."""

    name: str
    key: str
    left: bool = False  # whether its program takes from the left end
    why: str = "LISTS"  # or "*", or "sidekiq"
    shown_empty: bool = True  # whether it is listed even if it holds nothing


@dataclass(frozen=True)
class ListsSetting:
    """The value of LISTS."""

    lists: tuple[AttachedList, ...] = ()
    every: bool = False  # attach every list outside QUEUE_PREFIX

    def __bool__(self) -> bool:
        return bool(self.lists or self.every)


def parse_lists(text: str) -> ListsSetting:
    """Return the value of LISTS: `[name=]key[@left]`, separated by commas. In a key, `\\x06` is that byte.

    A list that has no name of its own gets one from `with_names`, as the prefix is another setting.

    Raises:
        ValueError: an entry is malformed, or a key or a name is there twice. The text continues "LISTS".
    """
    entries = [part.strip() for part in text.split(",") if part.strip()]
    lists = [_parse_entry(entry) for entry in entries if entry != EVERY_LIST]
    for what, values in (("key", [one.key for one in lists]), ("name", [one.name for one in lists if one.name])):
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"has the {what} {value!a} twice")
    return ListsSetting(tuple(lists), EVERY_LIST in entries)


def _parse_entry(entry: str) -> AttachedList:
    name, equals, key = entry.rpartition("=")
    left = key.endswith(LEFT)
    key = re.sub(r"\\x([0-7][0-9a-fA-F])", lambda match: chr(int(match[1], 16)), key.removesuffix(LEFT))
    if not key or _OTHER_END.search(key):
        raise ValueError(f"must be keys such as celery, mails=celery:mails or resque:queue:high@left, not {entry!a}")
    if "*" in key:
        raise ValueError(f"takes no pattern but * alone, not {entry!a}")
    if equals and not is_name(name):
        raise ValueError(f"names the list {key!a} {name!a}, but a name has {NAME_RULE}")
    return AttachedList(name, key, left)


def with_names(setting: ListsSetting, prefix: str) -> dict[str, AttachedList]:
    """Return the lists of the setting by name, those of Celery's priorities included.

    Raises:
        ValueError: two lists have the same name, or every list is to be attached although every list is a queue.
    """
    if setting.every and not prefix:
        raise ValueError("cannot be * while QUEUE_PREFIX is empty: then every list is a queue of Seequeue's")
    named: dict[str, AttachedList] = {}
    for one in setting.lists:
        name = one.name or name_of(one.key, prefix)
        if name in named:
            raise ValueError(f"gives {one.key!a} and {named[name].key!a} the same name; put another= in front of one")
        named[name] = AttachedList(name, one.key, one.left)
    for one in list(named.values()):
        for priority in PRIORITIES if not one.left and PRIORITY_MARK not in one.key else ():
            key, name = f"{one.key}{PRIORITY_MARK}{priority}", f"{one.name}-priority-{priority}"
            if is_name(name):
                named.setdefault(name, AttachedList(name, key, shown_empty=False))
    return named


def name_of(key: str, prefix: str) -> str:
    """Return the name that a list gets from its key."""
    own = key.removeprefix(prefix) if prefix else key
    if is_name(own):
        return own
    readable = key.replace(PRIORITY_MARK, "-priority-")
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", readable)[:MAX_NAME]
