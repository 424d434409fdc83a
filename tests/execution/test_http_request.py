"""Requests are made of templates and values, and no value leaves its place: pure, with the examples RFC 6570 publishes."""

import json
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cra_mcp.atlas.http_target import TargetError, TargetTemplate
from cra_mcp.atlas.model import HttpBody, HttpExecutor
from cra_mcp.atlas.origin import Origin, OriginError, split_url
from cra_mcp.atlas.uri_template import UriTemplateError, expand
from cra_mcp.errors import ExecutionError
from cra_mcp.execution.http_request import HttpRequest, RequestTemplate, RequestTemplateError

# RFC 6570, 3.2
RFC_VALUES: dict[str, object] = {
    "count": ["one", "two", "three"],
    "dom": ["example", "com"],
    "dub": "me/too",
    "hello": "Hello World!",
    "half": "50%",
    "var": "value",
    "who": "fred",
    "base": "http://example.com/home/",
    "path": "/foo/bar",
    "list": ["red", "green", "blue"],
    "keys": {"semi": ";", "dot": ".", "comma": ","},
    "v": "6",
    "x": "1024",
    "y": "768",
    "empty": "",
    "empty_keys": {},
    "undef": None,
}
RFC_EXAMPLES = """
{count} one,two,three | {count*} one,two,three | {/count} /one,two,three | {/count*} /one/two/three
{;count} ;count=one,two,three | {;count*} ;count=one;count=two;count=three | {?count} ?count=one,two,three
{?count*} ?count=one&count=two&count=three | {&count*} &count=one&count=two&count=three
{var} value | {hello} Hello%20World%21 | {half} 50%25 | O{empty}X OX | O{undef}X OX | {x,y} 1024,768
{x,hello,y} 1024,Hello%20World%21,768 | ?{x,empty} ?1024, | ?{x,undef} ?1024 | ?{undef,y} ?768 | {var:3} val | {var:30} value
{list} red,green,blue | {list*} red,green,blue | {keys} semi,%3B,dot,.,comma,%2C | {keys*} semi=%3B,dot=.,comma=%2C
{+var} value | {+hello} Hello%20World! | {+half} 50%25 | {base}index http%3A%2F%2Fexample.com%2Fhome%2Findex
{+base}index http://example.com/home/index | O{+empty}X OX | O{+undef}X OX | {+path}/here /foo/bar/here
here?ref={+path} here?ref=/foo/bar | up{+path}{var}/here up/foo/barvalue/here | {+x,hello,y} 1024,Hello%20World!,768
{+path,x}/here /foo/bar,1024/here | {+path:6}/here /foo/b/here | {+list} red,green,blue | {+list*} red,green,blue
{+keys} semi,;,dot,.,comma,, | {+keys*} semi=;,dot=.,comma=,
{#var} #value | {#hello} #Hello%20World! | {#half} #50%25 | foo{#empty} foo# | foo{#undef} foo
{#x,hello,y} #1024,Hello%20World!,768
{#path,x}/here #/foo/bar,1024/here | {#path:6}/here #/foo/b/here
{#list} #red,green,blue | {#list*} #red,green,blue
{#keys} #semi,;,dot,.,comma,, | {#keys*} #semi=;,dot=.,comma=,
{.who} .fred | {.who,who} .fred.fred | {.half,who} .50%25.fred | www{.dom*} www.example.com | X{.var} X.value | X{.empty} X.
X{.undef} X | X{.var:3} X.val | X{.list} X.red,green,blue | X{.list*} X.red.green.blue | X{.keys} X.semi,%3B,dot,.,comma,%2C
X{.keys*} X.semi=%3B.dot=..comma=%2C | X{.empty_keys} X | X{.empty_keys*} X
{/who} /fred | {/who,who} /fred/fred | {/half,who} /50%25/fred | {/who,dub} /fred/me%2Ftoo | {/var} /value | {/var,empty} /value/
{/var,undef} /value | {/var,x}/here /value/1024/here | {/var:1,var} /v/value | {/list} /red,green,blue
{/list*} /red/green/blue | {/list*,path:4} /red/green/blue/%2Ffoo | {/keys} /semi,%3B,dot,.,comma,%2C
{/keys*} /semi=%3B/dot=./comma=%2C
{;who} ;who=fred | {;half} ;half=50%25 | {;empty} ;empty | {;v,empty,who} ;v=6;empty;who=fred | {;v,bar,who} ;v=6;who=fred
{;x,y} ;x=1024;y=768 | {;x,y,empty} ;x=1024;y=768;empty | {;x,y,undef} ;x=1024;y=768 | {;hello:5} ;hello=Hello
{;list} ;list=red,green,blue | {;list*} ;list=red;list=green;list=blue | {;keys} ;keys=semi,%3B,dot,.,comma,%2C
{;keys*} ;semi=%3B;dot=.;comma=%2C
{?who} ?who=fred | {?half} ?half=50%25 | {?x,y} ?x=1024&y=768 | {?x,y,empty} ?x=1024&y=768&empty= | {?x,y,undef} ?x=1024&y=768
{?var:3} ?var=val | {?list} ?list=red,green,blue | {?list*} ?list=red&list=green&list=blue
{?keys} ?keys=semi,%3B,dot,.,comma,%2C | {?keys*} ?semi=%3B&dot=.&comma=%2C
{&who} &who=fred | {&half} &half=50%25 | ?fixed=yes{&x} ?fixed=yes&x=1024 | {&x,y,empty} &x=1024&y=768&empty=
{&x,y,undef} &x=1024&y=768 | {&var:3} &var=val | {&list} &list=red,green,blue | {&list*} &list=red&list=green&list=blue
{&keys} &keys=semi,%3B,dot,.,comma,%2C | {&keys*} &semi=%3B&dot=.&comma=%2C
"""
EXAMPLES = [pair.strip().rsplit(" ", 1) for line in RFC_EXAMPLES.strip().splitlines() for pair in line.split(" | ")]

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HOSTILE = st.sampled_from(
    [
        "..", ".", "../..", "%2e%2e", "%252e%252e%252f", "..%2f", "/", "//", "//evil.test", "\\", "\\\\evil.test", "@evil.test",
        ":8080", "a/../../b", "..;x", "?x=1", "#f", "&admin=1", "a\r\nX: 1", "\0", "%0d%0a", "%c0%ae%c0%ae/", "http://evil.test/",
        "", " ", "a b", "..\t", ". .", "%", "%%", "%2", "{x}", "日本", "a;b=c",
    ]
)  # fmt: skip


@pytest.mark.parametrize(("template", "text"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_examples_of_the_rfc_expand_as_it_says(template: str, text: str) -> None:
    assert expand(template, RFC_VALUES) == text


def test_a_prefix_counts_characters() -> None:
    assert expand("{x:2}", {"x": "ü日z"}) == "%C3%BC%E6%97%A5"


@pytest.mark.parametrize(
    "template", ["{", "}", "{}", "{a", "a}", "{a{b}}", "{!a}", "{=a}", "{a:0}", "{a:10000}", "{a:*}", "{a*:3}", "{a b}", "{,a}",
                 "{a.}", "{a..b}", "{-a}", "a b", "ä", '"', "<", "a%zz", "{?}"],
)  # fmt: skip
def test_what_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(UriTemplateError):
        expand(template, {"a": "x"})


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://API.Example.com/x", Origin("https", "api.example.com", 443)),
        ("http://a.b:8080", Origin("http", "a.b", 8080)),
        ("https://[::FFFF:1.2.3.4]:1/{x}", Origin("https", "::ffff:1.2.3.4", 1)),
        ("http://1.2.3.4/", Origin("http", "1.2.3.4", 80)),
        ("https://a.example.", Origin("https", "a.example", 443)),
    ],
)
def test_an_origin_has_one_reading(url: str, origin: Origin) -> None:
    assert split_url(url)[0] == origin


@pytest.mark.parametrize(
    "url",
    [
        "https://{host}/", "https://a.{b}.c/", "https://a{x}/", "{scheme}://a/", "https://a:{port}/", "https://a:80{x}/",
        "https://user@a/", "https://u:p@a/", "https://a\\@b/", "https:/a", "https:///a", "ftp://a/", "//a/", "https://a b/",
        "https://127.1/", "https://0x7f.0.0.1/", "https://2130706433/", "https://0177.0.0.1/", "https://1.2.3.4.5/", "https://a..b/",
        "https://-a/", "https://a_b/", "https://a:0/", "https://a:70000/", "https://ä.test/", "https://[::1/", "https://[::1%25a]/",
        "https://${HOST}/", "https://a%2eb/", "https://a{+path}", "https://a{;x}/",
    ],
)  # fmt: skip
def test_no_parameter_and_no_trick_chooses_the_host(url: str) -> None:
    with pytest.raises((OriginError, TargetError)):
        TargetTemplate(url)


@pytest.mark.parametrize(
    "url", ["/a#b", "/a{#x}", "/a?b{+x}", "/a?b{/x}", "/a?{?x}", "/a{&x}", "/../a", "/a/./b", "/a//b", "/%2e%2e/a", "/{x}/../y",
            "/a%00", "/%2e%2e%2fa", "/a{?x}{?y}", "/%ff"],
)  # fmt: skip
def test_a_template_with_parts_in_the_wrong_place_is_refused(url: str) -> None:
    with pytest.raises(TargetError):
        TargetTemplate(f"https://a.test{url}")


def target(path: str, /, **values: object) -> str:
    return TargetTemplate(f"https://a.test{path}").expand(values)


def test_values_take_their_places() -> None:
    assert target("/u/{id}/x{?q,page}", id="a b&c?d", q="ü=&", page=2) == "/u/a%20b%26c%3Fd/x?q=%C3%BC%3D%26&page=2"
    assert target("/u{/parts*}", parts=["a", "b c"]) == "/u/a/b%20c"
    assert target("/f/{+path}", path="a/b.txt") == "/f/a/b.txt"
    assert target("{?q}", q=None) == "/"
    assert target("?a=1{&q}", q=True) == "/?a=1&q=true"
    assert target("/v{;x}{.y}", x=1.0, y=1.5) == "/v;x=1.1.5"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("/u/{x}/y", value) for value in ("", None, [], "..", ".", "a/b", "a\\b", "%2e%2e", "%2f", "%252f", "..;x")),
        *(("/u/{x}/y", value) for value in ("\n", "\0", "%00")),
        *(("/u/{+x}", value) for value in ("..", "a/../b", "/", "a//b", "", None, "?a", "a#b", "%2e%2e/", "..%2f")),
        *(("/u/{+x}", value) for value in ("%0d%0a", "%c0%ae")),
        *(("/u{/x*}", value) for value in (["a", ".."], [""], ["a", ""], {"a": "b"})),
        *(("/u/.{x}", value) for value in (".",)),
        *(("/u/{x}", value) for value in ([["a"]], [{}], ["a/b"], {"a/b": "c"}, "\ud800")),
        *(("/u{?x*}", value) for value in ({"admin": "1"}, [[1]])),
    ],
)  # fmt: skip
def test_a_value_that_would_leave_its_place_is_refused(path: str, value: object) -> None:
    with pytest.raises(TargetError) as caught:
        target(path, x=value)
    assert not isinstance(value, str) or len(value) < 3 or value not in str(caught.value)


def test_a_mark_in_the_schema_lets_slashes_through_encoded() -> None:
    schema = {"type": "object", "properties": {"project": {"type": "string", "x-cra-allow-slash": True}}}
    template = RequestTemplate(HttpExecutor("GET", "https://a.test/projects/{project}/x"), schema)
    assert template.build({"project": "group/name"}, "e").target == "/projects/group%2Fname/x"
    with pytest.raises(ExecutionError):
        template.build({"project": "group/../name"}, "e")


@given(
    st.sampled_from(["/u/{x}/y", "/u/{+x}", "/u{/x*}", "/a{;x*}", "/b{.x}", "/q{?x*}", "/q?a=1{&x}"]), VALUES | HOSTILE
)
@example("/u/{x}/y", "..")
def test_no_value_changes_where_a_request_goes(path: str, value: object) -> None:
    template = TargetTemplate(f"https://a.test:8443{path}")
    try:
        text = template.expand({"x": value})
    except TargetError:
        return
    assert template.origin == Origin("https", "a.test", 8443)
    assert text.isascii()
    assert text.isprintable()
    assert text.startswith("/")
    assert not text.startswith("//")
    assert " " not in text
    assert "#" not in text
    assert "\\" not in text
    parsed = urlsplit(f"https://a.test:8443{text}")
    assert (parsed.netloc, parsed.fragment) == ("a.test:8443", "")
    segments = unquote(unquote(parsed.path)).replace("\\", "/").split("/")
    assert not {".", ".."} & {segment.partition(";")[0] for segment in segments}
    assert parsed.path.startswith(path[:2])
    if path == "/u/{x}/y":
        assert parsed.path.count("/") == 3
        assert parsed.query == ""
    if "?" in path:
        names = {name for name, _ in parse_qsl(parsed.query, keep_blank_values=True)}
        assert names <= {"x", "a"}


def build(parameters: dict[str, object], properties: dict[str, object] | None = None, **options: object) -> HttpRequest:
    executor = HttpExecutor(**{"method": "POST", "url": "https://a.test/", **options})
    schema = {"type": "object", "properties": properties or {name: {} for name in parameters}}
    return RequestTemplate(executor, schema).build(parameters, "execution")


@given(VALUES | HOSTILE)
def test_a_field_of_a_query_stays_one_field(value: object) -> None:
    try:
        request = build({"x": value}, query={"a b&": "{x}", "c": "v={x}", "fixed": "1"})
    except ExecutionError as error:
        assert error.code == "value_refused"  # noqa: PT017 - many values are fine
        return
    fields = parse_qsl(urlsplit(f"https://a.test{request.target}").query, keep_blank_values=True)
    assert {name for name, _ in fields} <= {"a b&", "c", "fixed"}
    assert fields.count(("fixed", "1")) == 1
    if isinstance(value, str):
        assert dict(fields) == {"a b&": value, "c": f"v={value}", "fixed": "1"}


@given(VALUES | HOSTILE)
def test_a_header_stays_one_header(value: object) -> None:
    try:
        request = build({"x": value}, headers={"X-One": "{x}", "X-Two": "a {x} b"})
    except ExecutionError as error:
        assert error.code == "value_refused"  # noqa: PT017 - as above
        return
    for text in request.headers.values():
        assert text.isascii()
        assert text.isprintable() or "\t" in text
        assert "\r" not in text
        assert "\n" not in text
    if isinstance(value, str):
        assert request.headers["X-One"] == value


@given(VALUES)
def test_a_json_body_holds_the_value_itself(value: object) -> None:
    body = HttpBody({"a": ["{x}", {"b": "{x}"}], "fixed": {"n": None, "s": "{{x}}"}, "gone": "{y}"})
    request = build({"x": value}, {"x": {}, "y": {}}, body=body)
    assert json.loads(request.body or b"") == {"a": [value, {"b": value}], "fixed": {"n": None, "s": "{x}"}}
    assert request.headers["Content-Type"] == "application/json"


def test_what_is_missing_is_left_out_and_null_is_not() -> None:
    properties = {"a": {}, "b": {"default": 7}, "c": {}}
    body = HttpBody({"a": "{a}", "b": "{b}", "c": "{c}", "text": "x{a}"})
    request = build({"c": None}, properties, body=body, query={"a": "{a}", "b": "{b}"}, headers={"X-A": "{a}"})
    assert json.loads(request.body or b"") == {"b": 7, "c": None}
    assert request.target == "/?b=7"
    assert "X-A" not in request.headers
    assert build({}, {"a": {}}, body=HttpBody("{a}")).body is None


def test_lists_become_several_fields_and_a_form_is_a_form() -> None:
    request = build({"x": ["a b", 2, True]}, body=HttpBody({"x": "{x}", "k&": "v"}, "form"), query={"x": "{x}"})
    assert request.target == "/?x=a%20b&x=2&x=true"
    assert request.body == b"x=a+b&x=2&x=true&k%26=v"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_a_header_of_the_atlas_takes_the_place_of_ours() -> None:
    request = build(
        {}, headers={"ACCEPT": "text/csv", "content-type": "application/merge-patch+json"}, body=HttpBody({})
    )
    assert request.headers["ACCEPT"] == "text/csv"
    assert [name for name in request.headers if name.lower() == "content-type"] == ["content-type"]


def test_a_url_beyond_bounds_is_refused() -> None:
    with pytest.raises(ExecutionError):
        build({"x": "y" * 20_000}, query={"x": "{x}"})


@pytest.mark.parametrize("options", [{"url": "https://a.test/{"}, {"headers": {"X": "{"}}, {"body": HttpBody(["}"])}])
def test_a_template_that_is_not_well_formed_makes_no_requests(options) -> None:
    with pytest.raises(RequestTemplateError):
        RequestTemplate(HttpExecutor(**{"method": "GET", "url": "https://a.test/", **options}), {})


def test_nothing_of_a_request_shows_in_its_text() -> None:
    assert "word" not in repr(build({"x": "word"}, query={"x": "{x}"}, body=HttpBody("{x}"), headers={"X": "{x}"}))
