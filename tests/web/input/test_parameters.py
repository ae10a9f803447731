"""The kinds of parameters: which texts and JSON values each takes, and how a request sends them."""

from typing import Any

import pytest
from werkzeug.test import EnvironBuilder

from web.errors import ApiError
from web.input import parameters
from web.input.body import FORM, RawJson
from web.input.parameters import (
    AsciiName,
    Choice,
    Flag,
    Integer,
    Message,
    Number,
    Parameter,
    QueueName,
    Text,
    TextList,
    one_or_many,
    parse,
)
from web.request import Request

COUNT = Integer("max", minimum=1, maximum=1000)
WAIT = Number("wait", default=0, maximum=60)
NAME = Text("name", maximum=5)
KINDS: list[tuple[Parameter, list[tuple[str, Any]], list[str]]] = [  # what each takes, and what it refuses
    (
        COUNT,
        [("1", 1), ("1000", 1000), ("007", 7)],
        ["0", "1001", "-1", "1.0", "1e2", " 1", "+1", "", "x", "٣", "9" * 5000, "1\n", "0x1", "1_0"],
    ),
    (
        WAIT,
        [
            ("0", 0),
            ("60", 60),
            ("0.5", 0.5),
            ("1e1", 10),
            ("+1", 1),
            ("2.2250738585072014e-308", 2.2250738585072014e-308),
        ],
        ["-1", "60.1", "x", "", "nan", "inf", "-inf", "1e9", "1_0", "٣", "0x1", "9" * 41],
    ),
    (Flag("dead"), [("1", True), ("true", True), ("0", False), ("false", False)], ["", "2", "yes", "-1", "TRUE"]),
    (NAME, [("", ""), ("žluťů", "žluťů")], ["abcdef"]),
    (Text("text", minimum=1), [("a", "a")], [""]),
    (Text("undo", required=True), [("a b", "a b"), ("\0", "\0")], [""]),
    (AsciiName("job"), [("!~", "!~"), ("x" * 255, "x" * 255)], ["", "a b", "x" * 256, "ž", "a\n"]),
    (Choice("each", words=("line",)), [("line", "line")], ["", "lines", "LINE"]),
    (QueueName("to"), [("a.B-0_9:x", "a.B-0_9:x")], ["", "a b", "x" * 129, "a/b"]),
    (TextList("ids", maximum=3), [("a", ["a"]), ("a,b,a", ["a", "b"]), ("", [""])], ["a,b,c,d"]),
]
JSON_VALUES: list[tuple[Parameter, str, Any]] = [
    (COUNT, "1", 1),
    (COUNT, "5.0", 5),
    (COUNT, '"5"', 5),
    (COUNT, "null", None),
    (COUNT, "true", 1),
    (WAIT, "0.5", 0.5),
    (Flag("dead"), "true", True),
    (Flag("dead"), "0", False),
    (TextList("ids"), '["a","b","a"]', ["a", "b"]),
    (TextList("ids"), '"a,b"', ["a", "b"]),
    (TextList("ids"), "null", None),
]
BAD_JSON_VALUES: list[tuple[Parameter, str]] = [
    *((COUNT, text) for text in ("[1]", "{}", "1.5", "-1", "1e400", "1" + "0" * 5000, "false", '"x"')),
    *((TextList("ids", maximum=2), text) for text in ("[]", "[1]", "{}", '[["a"]]', "[null]", '["a","b","c"]', "1.5e")),
    (NAME, '["a"]'),
    (NAME, "{}"),
]


def request_of(query: str = "", kind: str = "application/json") -> Request:
    return Request(EnvironBuilder(method="POST", query_string=query, content_type=kind).get_environ())


def error_of(query: str = "", fields: dict[str, Any] | None = None, kind: str = "application/json") -> ApiError:
    """Return the error for a request to an operation that takes PARAMETERS."""
    with pytest.raises(ApiError) as caught:
        parse(request_of(query, kind), PARAMETERS, fields or {})
    return caught.value


PARAMETERS = (COUNT, NAME, Message("message"), Choice("each", words=("line",), in_body=False))


@pytest.mark.parametrize(
    ("parameter", "text", "value"),
    [
        pytest.param(parameter, text, value, id=f"{parameter.name}-{text[:20]}")
        for parameter, taken, _ in KINDS
        for text, value in taken
    ],
)
def test_a_parameter_takes_a_valid_text(parameter: Parameter, text: str, value: Any) -> None:
    assert parameter.parse(text) == value


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        pytest.param(parameter, text, id=f"{parameter.name}-{text[:20]}")
        for parameter, _, refused in KINDS
        for text in refused
    ],
)
def test_a_parameter_refuses_any_other_text_and_names_itself(parameter: Parameter, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parameter.parse(text)
    assert caught.value.error == ("bad_name" if parameter.name == "to" and text else "bad_parameter")
    assert caught.value.details == ({} if caught.value.error == "bad_name" else {"parameter": parameter.name})
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(("parameter", "text", "value"), JSON_VALUES, ids=lambda value: str(value)[:20])
def test_a_json_value_is_taken_as_its_text_is(parameter: Parameter, text: str, value: Any) -> None:
    assert parse(request_of(), [parameter], {parameter.name: RawJson(text.encode())})[parameter.name] == value


@pytest.mark.parametrize(("parameter", "text"), BAD_JSON_VALUES, ids=lambda value: str(value)[:20])
def test_any_other_json_value_is_refused(parameter: Parameter, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(request_of(), [parameter], {parameter.name: RawJson(text.encode())})
    assert (caught.value.error, caught.value.details["parameter"]) == ("bad_parameter", parameter.name)


def test_a_parameter_that_is_left_out_has_its_default() -> None:
    assert parse(request_of(), (*PARAMETERS, WAIT), {}) == {
        "max": None,
        "name": None,
        "message": None,
        "each": None,
        "wait": 0,
    }


@pytest.mark.parametrize("query", ["?", "?name=", "?name"])
@pytest.mark.parametrize("fields", [{}, {"name": RawJson(b"null")}])
def test_a_required_parameter_must_be_sent(query: str, fields: dict[str, Any]) -> None:
    sent = {} if len(query) > 1 else fields
    with pytest.raises(ApiError, match="Missing parameter: name") as caught:
        parse(request_of(query[1:]), [Text("name", required=True)], sent)
    assert (caught.value.error, caught.value.details) == ("bad_parameter", {"parameter": "name"})


@pytest.mark.parametrize(
    ("query", "fields"),
    [("max=1&max=1", {}), ("max=1", {"max": "1"}), ("max=1", {"max": RawJson(b"null")})],
    ids=["in the query", "in the query and a form", "in the query and JSON"],
)
def test_a_parameter_that_is_given_twice_is_refused(query: str, fields: dict[str, Any]) -> None:
    assert (error_of(query, fields).error, error_of(query, fields).message) == ("duplicate_key", "max is given twice.")


def test_a_parameter_in_the_wrong_place_is_refused() -> None:
    for error, name, place in [
        (error_of("message=a"), "message", "in the body, not in the query string"),
        (error_of("message=a", {"message": "a"}), "message", "in the body, not in the query string"),
        (error_of("", {"each": "line"}), "each", "in the query string, not in the body"),
    ]:
        assert (error.error, error.details) == ("bad_parameter", {"parameter": name})
        assert place in error.message


@pytest.mark.parametrize(
    ("query", "fields", "kind", "sentence"),
    [
        ("", {"hello": ""}, FORM, 'Unknown parameter "hello". Did you mean message=hello?'),
        ("nam=x", {}, FORM, 'Unknown parameter "nam". Did you mean name?'),
        ("ttl=1", {}, FORM, 'Unknown parameter "ttl". Known parameters: max, name, message, each.'),
        ("", {"ttl": RawJson(b"1")}, FORM, 'Unknown parameter "ttl". Known parameters: max, name, message, each.'),
        ("Max=1", {}, FORM, 'Unknown parameter "Max". Did you mean max?'),
        ("=1", {}, FORM, 'Unknown parameter "". Known parameters: max, name, message, each.'),
    ],
    ids=lambda value: str(value)[:20],
)
def test_an_unknown_parameter_is_named_with_what_was_meant(
    query: str, fields: dict[str, Any], kind: str, sentence: str
) -> None:
    error = error_of(query, fields, kind)
    assert (error.error, error.message) == ("unknown_parameter", sentence)


def test_an_unknown_parameter_of_an_operation_without_any_is_refused() -> None:
    with pytest.raises(ApiError, match="This operation has no parameters"):
        parse(request_of("max=1"), [], {})


@pytest.mark.parametrize(
    ("field", "named"),
    [(" Jerry", " Jerry"), ("", ""), ("Message", "Message"), ("🐎", "🐎"), ("x" * 5000, "x" * 60), ("\ud800", "?")],
    ids=lambda value: ascii(value)[:12],
)
def test_a_message_cut_by_an_unescaped_ampersand_is_refused_with_advice(field: str, named: str) -> None:
    error = error_of("", {"message": "Tom ", field: ""}, FORM)
    assert (error.error, error.details) == ("unknown_parameter", {"parameter": named})
    assert error.message.endswith("In a form, & separates fields; escape it with curl's --data-urlencode.")
    assert len(error.message) < 400


def test_one_value_or_a_list_is_needed_but_not_both() -> None:
    assert (one_or_many("a", None, "id"), one_or_many(None, ["a", "b"], "id")) == (["a"], ["a", "b"])
    for one, many in [(None, None), ("a", ["b"])]:
        with pytest.raises(ApiError, match="Send either id or ids"):
            one_or_many(one, many, "id")


def test_ids_are_counted_before_a_list_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = parameters.TextList("ids")
    assert len(ids.parse(",".join(map(str, range(1000))))) == 1000
    monkeypatch.setattr(parameters, "read_strings", pytest.fail)
    with pytest.raises(ApiError, match="1 to 1000"):
        ids.from_json(RawJson(b"[" + b",".join([b'"a"'] * 1001) + b"]"))
    with pytest.raises(ApiError, match="1 to 1000"):
        ids.parse("a," * 1001)


def test_only_the_beginning_of_an_unknown_name_is_compared_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[str] = []

    def compare(name: str, *_: Any) -> list[str]:
        compared.append(name)
        return []

    monkeypatch.setattr(parameters, "get_close_matches", compare)
    error_of("", {"a" * 10_000: "1"})
    assert compared == ["a" * 60]
