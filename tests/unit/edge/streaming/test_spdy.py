"""SPDY/3.1 framing and the lifecycle of streams, against hand-written frames."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spdyclient import (
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    SYN_REPLY,
    SYN_STREAM,
    WINDOW_UPDATE,
    Frame,
    SpdyClient,
    block,
    control,
    data,
)

from noderuntime.edge.streaming.spdy import GoneAway, Opened, Received, ServerSession, SpdyError, WasReset
from noderuntime.edge.streaming.spdy.dictionary import DICTIONARY


def session(most: int = 8) -> ServerSession:
    return ServerSession(most)


def answers(server: ServerSession, client: SpdyClient) -> list[Frame]:
    return list(client.frames(server.take_output()))


def test_the_dictionary_has_the_drafts_checksum() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_a_stream_is_opened_used_and_finished() -> None:
    server, client = session(), SpdyClient()
    headers = {"streamtype": "stdin", "port": "80"}
    assert list(server.receive(client.open(headers))) == [Opened(1, headers, finished=False)]
    server.accept(1)
    assert answers(server, client) == [Frame(SYN_REPLY, 1, False, bytes(4))]
    assert list(server.receive(data(1, b"in"))) == [Received(1, b"in", finished=False)]
    assert list(server.receive(data(1, b"", fin=True))) == [Received(1, b"", finished=True)]
    server.send(1, b"out")
    server.send(1, b"", finish=True)
    server.send(1, b"too late")
    assert answers(server, client) == [Frame(0, 1, False, b"out"), Frame(0, 1, True, b"")]


def test_header_blocks_share_one_zlib_stream() -> None:
    server, client = session(), SpdyClient()
    for number in range(5):
        headers = {"requestid": str(number), "streamtype": "data"}
        (event,) = server.receive(client.open(headers))
        assert event == Opened(2 * number + 1, headers, finished=False)
        server.accept(2 * number + 1)
    assert [frame.content for frame in answers(server, client)] == [bytes(4)] * 5


def test_the_first_header_value_is_used_and_names_fold_case() -> None:
    (event,) = session().receive(SpdyClient().open({"StreamType": "a\0b"}))
    assert event == Opened(1, {"streamtype": "a"}, finished=False)


def test_a_data_frame_is_passed_on_in_pieces() -> None:
    server = session()
    list(server.receive(SpdyClient().open({})))
    whole = data(1, b"x" * 100, fin=True)
    assert list(server.receive(whole[:50])) == [Received(1, b"x" * 42, finished=False)]
    assert list(server.receive(whole[50:])) == [Received(1, b"x" * 58, finished=True)]


@given(st.lists(st.integers(1, 40), max_size=30), st.binary(max_size=200))
def test_events_do_not_depend_on_how_bytes_are_split(cuts: list[int], content: bytes) -> None:
    client = SpdyClient()
    stream = client.open({"streamtype": "stdin"}) + data(1, content) + control(PING, b"\0\0\0\1")
    stream += client.open({"streamtype": "error"}) + data(1, b"", fin=True) + control(GOAWAY, bytes(8))
    server, events = session(), []
    for cut in cuts:
        events += list(server.receive(stream[:cut]))
        stream = stream[cut:]
    events += list(server.receive(stream))
    received = b"".join(event.data for event in events if isinstance(event, Received))
    assert received == content
    assert [type(event) for event in events if not isinstance(event, Received)] == [Opened, Opened, GoneAway]
    assert events[-2] == Received(1, b"", finished=True)


@given(
    st.dictionaries(st.text("abcdefgh-", min_size=1, max_size=9), st.text("abc =/.", max_size=20), max_size=9)
)
def test_any_headers_are_parsed(headers: dict[str, str]) -> None:
    (event,) = session().receive(SpdyClient().open(headers))
    assert event == Opened(1, headers, finished=False)


def test_half_closed_streams_stay_open_the_other_way() -> None:
    server, client = session(), SpdyClient()
    list(server.receive(client.open({}) + data(1, b"all", fin=True)))
    server.send(1, b"answer")
    assert answers(server, client) == [Frame(0, 1, False, b"answer")]

    server, client = session(), SpdyClient()
    list(server.receive(client.open({})))
    server.send(1, b"", finish=True)
    assert list(server.receive(data(1, b"more"))) == [Received(1, b"more", finished=False)]


def test_a_stream_can_be_opened_finished_or_unidirectional() -> None:
    server, client = session(), SpdyClient()
    assert list(server.receive(client.open({}, flags=1))) == [Opened(1, {}, finished=True)]
    list(server.receive(client.open({}, flags=2)))
    server.send(3, b"it would not hear this")
    assert answers(server, client) == []


def test_resets_end_both_directions() -> None:
    server, client = session(), SpdyClient()
    list(server.receive(client.open({}) + client.open({})))
    assert list(server.receive(control(RST_STREAM, struct.pack(">II", 1, 5)))) == [WasReset(1)]
    server.send(1, b"nobody hears")
    server.reset(1)
    server.reset(3)
    assert answers(server, client) == [Frame(RST_STREAM, 3, False, struct.pack(">II", 3, 5))]
    assert list(server.receive(data(3, b"crossed our reset"))) == []


def test_pings_of_the_client_are_answered() -> None:
    server, client = session(), SpdyClient()
    assert list(server.receive(control(PING, b"\0\0\0\7") + control(PING, b"\0\0\0\2"))) == []
    assert server.take_output() == control(PING, b"\0\0\0\7")
    assert answers(server, client) == []


def test_our_own_pings_are_even() -> None:
    server = session()
    server.ping()
    assert server.take_output() == control(PING, b"\0\0\0\2")


def test_windows_and_settings_are_ignored() -> None:
    server = session()
    list(server.receive(SpdyClient().open({})))
    frames = control(WINDOW_UPDATE, struct.pack(">II", 1, 65536)) + control(SETTINGS, struct.pack(">I", 0))
    assert list(server.receive(frames)) == []
    server.send(1, b"x" * 200_000)
    assert len(server.take_output()) == 200_008


def test_further_headers_are_decompressed_and_can_finish() -> None:
    server, client = session(), SpdyClient()
    list(server.receive(client.open({})))
    more = struct.pack(">I", 1) + client.compressed(block({"more": "of this"}))
    assert list(server.receive(control(HEADERS, more))) == []
    more = struct.pack(">I", 1) + client.compressed(block({"more": "of this"}))
    assert list(server.receive(control(HEADERS, more, flags=1))) == [Received(1, b"", finished=True)]
    assert list(server.receive(client.open({"a": "b"}))) == [Opened(3, {"a": "b"}, finished=False)]


def test_goaway_names_the_last_stream() -> None:
    server, client = session(), SpdyClient()
    list(server.receive(client.open({}) + client.open({})))
    server.go_away()
    assert server.take_output() == control(GOAWAY, struct.pack(">II", 3, 0))


def test_streams_above_the_limit_are_refused() -> None:
    server, client = session(most=2), SpdyClient()
    list(server.receive(client.open({}) + client.open({})))
    assert list(server.receive(client.open({}))) == []
    assert answers(server, client) == [Frame(RST_STREAM, 5, False, struct.pack(">II", 5, 3))]
    server.reset(1)
    assert list(server.receive(client.open({}))) == [Opened(7, {}, finished=False)]


def test_data_on_a_finished_stream_resets_it() -> None:
    server, client = session(), SpdyClient()
    list(server.receive(client.open({}, flags=1)))
    assert list(server.receive(data(1, b"after all"))) == [WasReset(1)]
    assert [frame.kind for frame in answers(server, client)] == [RST_STREAM]


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (control(PING, b"\0\0\0\1", version=2), "version 2"),
        (control(5, b""), "unknown type 5"),
        (control(PING, b""), "type 6 has an invalid length: 0"),
        (control(SYN_STREAM, b"\0\0"), "type 1 has an invalid length: 2"),
        (data(0, b""), "stream 0"),
        (data(1, b"x"), "never opened"),
        (control(RST_STREAM, struct.pack(">II", 9, 1)), "never opened"),
        (control(SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + b"garbage"), "not valid zlib data"),
        (b"\x80\x03\x00\x04\x00\xff\xff\xff", "16777215 bytes"),
        (SpdyClient().open({}, stream_id=2), "stream 2 was opened"),
        (SpdyClient().open({}, stream_id=5) + SpdyClient().open({}, stream_id=5), "not valid zlib data"),
    ],
)
def test_a_protocol_violation_ends_the_session(frames: bytes, words: str) -> None:
    with pytest.raises(SpdyError, match=words):
        list(session().receive(frames))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (struct.pack(">I", 1 << 31), "claims"),
        (struct.pack(">II", 1, 1 << 30) + bytes(20), "inconsistent lengths|truncated"),
        (struct.pack(">I", 1) + bytes(3), "claims"),
        (struct.pack(">I", 1) + bytes(4), "truncated"),
        (block({"a": "b"}) + b"more", "inconsistent lengths"),
        (struct.pack(">I", 2) + (struct.pack(">I", 1) + b"a" + struct.pack(">I", 0)) * 2, "duplicate name"),
        (bytes(1 << 20), "more than 65536 bytes"),
        (b"", "truncated"),
    ],
)
def test_an_invalid_header_block_ends_the_session(raw: bytes, words: str) -> None:
    client = SpdyClient()
    payload = struct.pack(">IIH", 1, 0, 0) + client.compressed(raw)
    with pytest.raises(SpdyError, match=words):
        list(session().receive(control(SYN_STREAM, payload)))


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_garbage_is_parsed_or_rejected(chunks: list[bytes]) -> None:
    server, sent = session(), 0
    try:
        for chunk in chunks:
            list(server.receive(chunk))
            sent += len(server.take_output())
    except SpdyError:
        return
    assert sent <= 2 * sum(map(len, chunks))
