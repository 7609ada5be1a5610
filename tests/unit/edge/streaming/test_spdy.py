"""SPDY/3.1 framing and the life of streams, against frames written by hand."""

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


def test_the_dictionary_is_the_drafts() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_a_stream_from_its_opening_to_its_end() -> None:
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


def test_header_blocks_share_one_compression() -> None:
    server, client = session(), SpdyClient()
    for number in range(5):
        headers = {"requestid": str(number), "streamtype": "data"}
        (event,) = server.receive(client.open(headers))
        assert event == Opened(2 * number + 1, headers, finished=False)
        server.accept(2 * number + 1)
    assert [frame.content for frame in answers(server, client)] == [bytes(4)] * 5


def test_of_several_values_the_first_counts_and_names_have_no_case() -> None:
    (event,) = session().receive(SpdyClient().open({"StreamType": "a\0b"}))
    assert event == Opened(1, {"streamtype": "a"}, finished=False)


def test_a_data_frame_is_told_piece_by_piece() -> None:
    server = session()
    list(server.receive(SpdyClient().open({})))
    whole = data(1, b"x" * 100, fin=True)
    assert list(server.receive(whole[:50])) == [Received(1, b"x" * 42, finished=False)]
    assert list(server.receive(whole[50:])) == [Received(1, b"x" * 58, finished=True)]


@given(st.lists(st.integers(1, 40), max_size=30), st.binary(max_size=200))
def test_how_the_bytes_are_cut_changes_nothing(cuts: list[int], content: bytes) -> None:
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
def test_any_headers_come_through(headers: dict[str, str]) -> None:
    (event,) = session().receive(SpdyClient().open(headers))
    assert event == Opened(1, headers, finished=False)


def test_half_closed_streams_go_on_in_the_other_direction() -> None:
    server, client = session(), SpdyClient()
    list(server.receive(client.open({}) + data(1, b"all", fin=True)))
    server.send(1, b"answer")
    assert answers(server, client) == [Frame(0, 1, False, b"answer")]

    server, client = session(), SpdyClient()
    list(server.receive(client.open({})))
    server.send(1, b"", finish=True)
    assert list(server.receive(data(1, b"more"))) == [Received(1, b"more", finished=False)]


def test_a_stream_may_be_opened_finished_or_deaf() -> None:
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


def test_windows_and_settings_are_read_and_passed_over() -> None:
    server = session()
    list(server.receive(SpdyClient().open({})))
    frames = control(WINDOW_UPDATE, struct.pack(">II", 1, 65536)) + control(SETTINGS, struct.pack(">I", 0))
    assert list(server.receive(frames)) == []
    server.send(1, b"x" * 200_000)
    assert len(server.take_output()) == 200_008


def test_further_headers_keep_the_compression_right_and_may_finish_a_stream() -> None:
    server, client = session(), SpdyClient()
    list(server.receive(client.open({})))
    more = struct.pack(">I", 1) + client.compressed(block({"more": "of this"}))
    assert list(server.receive(control(HEADERS, more))) == []
    more = struct.pack(">I", 1) + client.compressed(block({"more": "of this"}))
    assert list(server.receive(control(HEADERS, more, flags=1))) == [Received(1, b"", finished=True)]
    assert list(server.receive(client.open({"a": "b"}))) == [Opened(3, {"a": "b"}, finished=False)]


def test_going_away_names_the_last_stream() -> None:
    server, client = session(), SpdyClient()
    list(server.receive(client.open({}) + client.open({})))
    server.go_away()
    assert server.take_output() == control(GOAWAY, struct.pack(">II", 3, 0))


def test_too_many_streams_are_refused_and_room_comes_back() -> None:
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
        (control(PING, b""), "type 6 with 0 bytes"),
        (control(SYN_STREAM, b"\0\0"), "type 1 with 2 bytes"),
        (data(0, b""), "stream 0"),
        (data(1, b"x"), "never opened"),
        (control(RST_STREAM, struct.pack(">II", 9, 1)), "never opened"),
        (control(SYN_STREAM, struct.pack(">IIH", 1, 0, 0) + b"garbage"), "not compressed"),
        (b"\x80\x03\x00\x04\x00\xff\xff\xff", "16777215 bytes"),
        (SpdyClient().open({}, stream_id=2), "stream 2 opened"),
        (SpdyClient().open({}, stream_id=5) + SpdyClient().open({}, stream_id=5), "not compressed"),
    ],
)
def test_what_breaks_the_protocol_ends_the_session(frames: bytes, words: str) -> None:
    with pytest.raises(SpdyError, match=words):
        list(session().receive(frames))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (struct.pack(">I", 1 << 31), "promises"),
        (struct.pack(">II", 1, 1 << 30) + bytes(20), "do not add up|ends early"),
        (struct.pack(">I", 1) + bytes(3), "promises"),
        (struct.pack(">I", 1) + bytes(4), "ends early"),
        (block({"a": "b"}) + b"more", "do not add up"),
        (struct.pack(">I", 2) + (struct.pack(">I", 1) + b"a" + struct.pack(">I", 0)) * 2, "same name twice"),
        (bytes(1 << 20), "more than 65536 bytes"),
        (b"", "ends early"),
    ],
)
def test_header_blocks_that_lie_end_the_session(raw: bytes, words: str) -> None:
    client = SpdyClient()
    payload = struct.pack(">IIH", 1, 0, 0) + client.compressed(raw)
    with pytest.raises(SpdyError, match=words):
        list(session().receive(control(SYN_STREAM, payload)))


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_garbage_is_understood_or_refused(chunks: list[bytes]) -> None:
    server, sent = session(), 0
    try:
        for chunk in chunks:
            list(server.receive(chunk))
            sent += len(server.take_output())
    except SpdyError:
        return
    assert sent <= 2 * sum(map(len, chunks))
