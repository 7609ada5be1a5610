"""Generated documents and references are parsed, or rejected in one line."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noderuntime.core.errors import InvalidArgument
from noderuntime.images import oci
from noderuntime.images.reference import stored_name

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["manifests", "config", "rootfs", "diff_ids", "Env", "Cmd", "Volumes", "User", "digest", "platform", "os"]
)
DOCUMENTS = st.recursive(
    ANYTHING, lambda inner: st.dictionaries(KEYS, inner | st.lists(inner, max_size=3), max_size=5)
)


def check_refusal(error):
    assert "\n" not in str(error)
    assert len(str(error).encode()) < 2000


@pytest.mark.parametrize("kind", [oci.Index, oci.Manifest, oci.Config])
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(raw=st.binary(max_size=200) | DOCUMENTS.map(lambda document: json.dumps(document).encode()))
def test_any_document_is_parsed_or_rejected(kind, raw):
    try:
        found = oci.read(kind, raw)
    except InvalidArgument as error:
        check_refusal(error)
        return
    if isinstance(found, oci.Config):
        oci.chain_id(found.rootfs.diff_ids)
        assert all(isinstance(word, str) for word in oci.container_defaults(found).env)
    if isinstance(found, oci.Index):
        oci.by_preference(found)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(max_size=60) | st.from_regex(r"[a-z0-9.:/@_-]{1,60}", fullmatch=True))
def test_any_reference_is_parsed_or_rejected(text):
    try:
        name = stored_name(text)
    except InvalidArgument as error:
        check_refusal(error)
        return
    assert name.startswith("sha256:") or stored_name(name) == name, "a full name is unchanged"
    assert ".." not in name.split("/")
