"""LISTS: its entries, the names that lists get, and the one line that refuses a wrong one."""

import pytest

from broker.attached.names import ListsSetting, parse_lists, with_names
from broker.keys import is_name
from settings import BadSetting, read


def names(text: str, prefix: str = "queue:") -> dict[str, tuple[str, bool]]:
    return {name: (one.key, one.left) for name, one in with_names(parse_lists(text), prefix).items()}


def test_a_list_has_the_name_of_its_key_or_its_own() -> None:
    assert names("resque:queue:high@left, mails=celery:mails@left") == {
        "resque:queue:high": ("resque:queue:high", True),
        "mails": ("celery:mails", True),
    }


def test_the_priorities_of_celery_are_queues_with_readable_names() -> None:
    assert names("celery") == {
        "celery": ("celery", False),
        "celery-priority-3": ("celery\x06\x163", False),
        "celery-priority-6": ("celery\x06\x166", False),
        "celery-priority-9": ("celery\x06\x169", False),
    }


def test_a_key_that_is_no_name_gets_a_readable_one() -> None:
    found = names(r"celery\x06\x164@left,my jobs/ü@left")
    assert found == {"celery-priority-4": ("celery\x06\x164", True), "my-jobs-": ("my jobs/ü", True)}
    assert all(is_name(name) for name in found)


def test_a_list_under_our_prefix_has_the_name_of_its_queue() -> None:
    assert names("queue:default@left") == {"default": ("queue:default", True)}
    assert names("queue:default@left", prefix="") == {"queue:default": ("queue:default", True)}


def test_every_list_can_be_attached() -> None:
    assert parse_lists("*") == ListsSetting((), every=True)
    assert parse_lists("jobs@eu").lists[0].key == "jobs@eu"  # no direction
    assert parse_lists(" ,") == ListsSetting() and not parse_lists("")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("celery@right", "not 'celery@right'"),
        ("celery@", "not 'celery@'"),
        ("name=", "not 'name='"),
        ("my mails=celery", "'my mails', but a name has 1 to 128"),
        ("celery*", "takes no pattern but * alone"),
        ("celery,celery@left", "has the key 'celery' twice"),
        ("a=x,a=y", "has the name 'a' twice"),
        ("a b,a-b", "the same name"),
    ],
)
def test_a_wrong_entry_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(BadSetting) as caught:
        read({"LISTS": text, "REDIS_URL": "redis://localhost"})
    line = str(caught.value)
    assert line.startswith("LISTS ") and words in line and "\n" not in line


def test_lists_need_a_redis_that_others_use_and_every_list_a_prefix() -> None:
    with pytest.raises(BadSetting, match="LISTS needs REDIS_URL"):
        read({"LISTS": "celery"})
    with pytest.raises(BadSetting, match=r"LISTS cannot be \* while QUEUE_PREFIX is empty"):
        read({"LISTS": "*", "QUEUE_PREFIX": "", "REDIS_URL": "redis://localhost"})
