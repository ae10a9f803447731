"""The documents say what the code does: guarantees, settings, figures, time limits and renamed words."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import settings
from tests.servers import ROOT


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


GUARANTEES, SETTINGS, PERFORMANCE, ARCHITECTURE = [
    read(f"docs/{name}.md") for name in ("guarantees", "settings", "performance", "architecture")
]


# --- guarantees


def guarantees() -> Iterator[tuple[str, str]]:
    """Yield each guarantee with its text: a paragraph that begins in bold, up to the next one."""
    for part in GUARANTEES.partition("## Not guaranteed")[0].split("\n\n**")[1:]:
        name, _, text = part.partition("**")
        yield name, text


def test_every_guarantee_names_its_tests() -> None:
    found = dict(guarantees())
    assert len(found) >= 17
    assert [name for name, text in found.items() if "[`test_" not in text] == []


def test_the_limits_of_what_is_remembered_are_those_of_the_scripts() -> None:
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "broker/lua").rglob("*.lua"))
    text = " ".join(GUARANTEES.split())
    for pattern, documented in (
        (r"MAX_\w+, \w+_SECONDS = 100000, 3600\b", "waited for an hour since it came back"),
        (r"MAX_\w+, \w+_SECONDS = 100000, 3600\b", "more than 100,000 messages of the queue have come back"),
        (r"MAX_ACKED, ACKED_SECONDS = 10000, 3600\b", "the last 10,000 acked ids"),
        (r"MAX_DUE = 10000\b", "more than 10,000 leases end at the same moment"),
    ):
        assert re.search(pattern, scripts), pattern
        assert documented in text, documented


# --- settings

SIZE = re.compile(r"(\d+)( MiB)?")
ROWS = {name: cells for name, *cells in re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \| .* \|$", SETTINGS, re.M)}
NUMBERS = {name: cells[1] for name, cells in ROWS.items() if re.fullmatch(r"\d+ to \d+( MiB)?", cells[1])}


def number(text: str) -> int:
    """Return a number as the document writes it, with or without a unit."""
    digits, unit = SIZE.fullmatch(text).groups()  # type: ignore[union-attr]
    return int(digits) << (20 if unit else 0)


def test_every_setting_is_documented_with_its_default_and_no_other() -> None:
    names: set[str] = set()

    class Environment(dict[str, str]):
        """An empty environment that notes which variables are read."""

        def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
            names.add(name)
            return default

    defaults = settings.read(Environment())
    assert set(ROWS) == names
    for name, (default, _) in ROWS.items():
        value = getattr(defaults, name.lower(), None)
        if isinstance(value, int):
            assert value == number(default), name
        elif isinstance(value, Path):
            assert default == f"`{value.relative_to(ROOT)}`", name
        else:
            assert default == (f"`{value}`" if isinstance(value, str) and value else "none"), name


@pytest.mark.parametrize("name", NUMBERS)
def test_a_setting_takes_the_numbers_that_are_documented_and_no_others(name: str) -> None:
    minimum, maximum = map(number, NUMBERS[name].split(" to "))
    for allowed in (minimum, maximum):
        assert getattr(settings.read({name: str(allowed)}), name.lower()) == allowed
    for refused in (minimum - 1, maximum + 1):
        with pytest.raises(settings.BadSetting, match=name):
            settings.read({name: str(refused)})


def test_every_setting_that_is_a_number_has_its_bounds_documented() -> None:
    numbers = {name for name in ROWS if isinstance(getattr(settings.Settings(), name.lower(), None), int)}
    assert set(NUMBERS) == numbers


@pytest.mark.parametrize(
    ("name", "value", "documented"),
    [
        ("QUEUE_NAME", lambda size: "a" * size, "1 to 128 of"),
        ("API_TOKEN", lambda size: "a" * size, "tokens of 8 to 1024 characters"),
        ("READ_TOKEN", lambda size: "a" * size, "as `API_TOKEN`"),
    ],
)
def test_a_setting_that_is_text_has_its_length_documented(
    name: str, value: Callable[[int], str], documented: str
) -> None:
    allowed = ROWS[name][1]
    assert documented in allowed
    minimum, maximum = re.findall(r"\d+", ROWS["API_TOKEN"][1] if name == "READ_TOKEN" else allowed)[:2]
    for size in (int(minimum), int(maximum)):
        settings.read({name: value(size)})
    with pytest.raises(settings.BadSetting, match=name):
        settings.read({name: value(int(maximum) + 1)})


# --- figures


def figures() -> dict[str, str]:
    """Return the details of each figure of the last run of the benchmark, by its name."""
    return dict(re.findall(r"^\| (.*?) \| [0-9.]+ \| .*? \| .*? \| (.*?) \|$", read("benchmarks/results.md"), re.M))


def test_every_figure_of_the_benchmark_is_explained_and_no_other() -> None:
    explained = re.findall(r"^\| (.*?) \| (?!what it answers)", PERFORMANCE, re.M)
    assert len(explained) == len(set(explained))
    optional = {"push : Webdis"}
    assert set(explained) - optional == figures().keys() - optional


def test_no_figure_is_copied_from_the_results() -> None:
    """They change with every run, so they stand in one place."""
    results = re.findall(r"^\| .*? \| ([0-9.]+) \|", read("benchmarks/results.md"), re.M)
    assert len(results) > 20
    assert [figure for figure in results if re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.])", PERFORMANCE)] == []


def test_the_rule_of_thumb_for_sizing_holds_in_the_last_run() -> None:
    """A rate is that of two workers."""
    rates = [figures()[what].partition("/s")[0].replace(",", "") for what in ("push : naive push", "pop : naive pop")]
    assert "A core serves about 2,000 single pushes or pops a second" in read("docs/operating.md")
    for rate in rates:
        assert 1_500 <= int(rate) / 2 < 3_000


# --- architecture


def value_of(name: str, place: Path) -> float | None:
    """Return the number that a constant or a setting has in a file, or in the files of a room."""
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        if found := re.search(rf"^\s*{name}(?: =|:) ([0-9.]+)", path.read_text(encoding="utf-8"), re.M):
            return float(found[1])
    return None


def test_the_time_limits_are_those_of_the_code_and_in_order() -> None:
    rows = re.findall(r"^\| .*? \| (\d+) \| (.*?) \|$", ARCHITECTURE, re.M)
    assert len(rows) >= 15
    for seconds, source in rows:
        *names, place = re.findall(r"`([\w./-]+)`", source) or [""]
        product = 1.0
        for name in names:
            value = value_of(name, ROOT / place)
            assert value is not None, f"{name} is not in {place}"
            product *= value
        assert not names or product == int(seconds), source
    assert [int(seconds) for seconds, _ in rows] == sorted(int(seconds) for seconds, _ in rows)


def test_the_rooms_are_all_the_folders_of_the_code() -> None:
    folders = {path.parent.relative_to(ROOT) for room in ("broker", "web") for path in (ROOT / room).rglob("*.py")}
    folders |= {path.parent.relative_to(ROOT) for path in ROOT.glob("*/*") if path.is_file()}
    folders |= {Path("broker/lua")}
    shown = {name.rstrip("/") for name in re.findall(r"`([\w/.]+)`", ARCHITECTURE.partition("## Processes")[0])}
    unnamed = {str(folder) for folder in folders if not str(folder).startswith((".", "_"))} - shown
    assert unnamed - {"instance", "docs", "node_modules"} == set()


# --- changelog


@pytest.mark.parametrize(
    ("kind", "reference"),
    [("error code", "docs/api.md"), ("setting", "docs/settings.md"), ("metric", "docs/api.md")],
)
def test_a_renamed_word_is_documented_under_its_new_name_alone(kind: str, reference: str) -> None:
    renamed = re.findall(rf"^\| {kind} \| `(\w+)` \| `(\w+)`", read("CHANGELOG.md"), re.M)
    assert renamed
    for old, new in renamed:
        assert f"`{new}`" in read(reference), new
        assert f"`{old}`" not in read(reference), old
