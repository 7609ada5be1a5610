"""WWW-Authenticate headers as registries send them, and generated ones."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noderuntime.images.registry.challenges import Challenge, parse_challenges

SCOPE = "repository:team/app:pull,push"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (['Basic realm="r"'], [("basic", {"realm": "r"})]),
        (["basic realm=r"], [("basic", {"realm": "r"})]),
        (["Negotiate"], [("negotiate", {})]),
        (
            [f'Bearer realm="https://t.example/token",service="s",scope="{SCOPE}"'],
            [("bearer", {"realm": "https://t.example/token", "service": "s", "scope": SCOPE})],
        ),
        (['Bearer realm="a" , Service = "b"'], [("bearer", {"realm": "a", "service": "b"})]),
        (['Bearer\trealm="a"'], [("bearer", {"realm": "a"})]),
        (['Bearer realm="a \\"b\\" \\\\c"'], [("bearer", {"realm": 'a "b" \\c'})]),
        (['Bearer realm="a",realm="b"'], [("bearer", {"realm": "a"})]),
        (['Bearer realm=""'], [("bearer", {"realm": ""})]),
        (["Bearer realm="], [("bearer", {"realm": ""})]),
        (['Basic realm="r", Bearer realm="t"'], [("basic", {"realm": "r"}), ("bearer", {"realm": "t"})]),
        (['Negotiate, Basic realm="r"'], [("negotiate", {}), ("basic", {"realm": "r"})]),
        (['Negotiate YWJj==, Basic realm="r"'], [("negotiate", {"ywjj": "="}), ("basic", {"realm": "r"})]),
        (['Basic realm="r"', "Bearer realm=t"], [("basic", {"realm": "r"}), ("bearer", {"realm": "t"})]),
        (['Bearer realm="never closed'], [("bearer", {"realm": ""})]),
        (['="'], []),
        (["\u00fc"], []),
    ],
)
def test_challenges_are_parsed(headers, found):
    assert parse_challenges(headers) == tuple(Challenge(*one) for one in found)


TOKEN = st.text("abzAZ09!#$%&'*+.^_`|~-", min_size=1, max_size=8)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(
    challenges=st.lists(
        st.tuples(TOKEN, st.dictionaries(TOKEN.map(str.lower), VALUES, min_size=1, max_size=3)), max_size=3
    )
)
def test_valid_challenges_round_trip(challenges):
    def quoted(value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges([header]) == tuple(
        Challenge(scheme.lower(), parameters) for scheme, parameters in challenges
    )


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(header=st.text(max_size=40) | st.text('aB=", \\\t', max_size=40))
def test_any_header_is_parsed_without_an_error(header):
    for challenge in parse_challenges([header]):
        assert challenge.scheme == challenge.scheme.lower()


@settings(deadline=1000, max_examples=8)
@given(unit=st.sampled_from(['a="', "a=\\", " ,", "a ", 'a="\\"', '"', "a=b,", "\\"]))
def test_parsing_takes_linear_time(unit):
    parse_challenges([unit * 10_000] * 4)
