"""TLS settings from files: an invalid file is named, and a changed one applies at once."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from realnode.tools import tool
from registries.pki import Authority

from noderuntime.core.errors import InvalidArgument
from noderuntime.images.registry.endpoints import Tls
from noderuntime.images.registry.tls import TlsContexts


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    directory = Path(tempfile.mkdtemp(prefix="noderuntime-tls-"))
    yield Authority(directory)
    shutil.rmtree(directory)


def authorities(context):
    return {certificate["serialNumber"] for certificate in context.get_ca_certs()}


async def test_a_configured_ca_is_added_to_the_systems(authority):
    contexts = TlsContexts()
    usual = await contexts.get(Tls())
    more = await contexts.get(Tls(ca=(authority.pair.cert,)))
    assert len(authorities(more) - authorities(usual)) == 1
    assert authorities(usual) <= authorities(more)
    assert more.verify_mode.name == "CERT_REQUIRED"
    assert more.check_hostname


async def test_verification_is_skipped_only_if_configured(authority):
    context = await TlsContexts().get(Tls(skip_verify=True))
    assert context.verify_mode.name == "CERT_NONE"
    assert not context.check_hostname


async def test_a_context_is_cached_until_a_file_changes(authority, tmp_path):
    contexts, file = TlsContexts(), tmp_path / "ca.pem"
    shutil.copy(authority.pair.cert, file)
    first = await contexts.get(Tls(ca=(file,)))
    assert await contexts.get(Tls(ca=(file,))) is first
    shutil.copy(Authority(tmp_path).pair.cert, file)
    second = await contexts.get(Tls(ca=(file,)))
    assert len(authorities(second) - authorities(first)) == 1


async def test_a_client_certificate_has_its_key_beside_it_or_in_the_same_file(authority, tmp_path):
    pair, both = authority.issue("client"), tmp_path / "both.pem"
    both.write_bytes(pair.cert.read_bytes() + pair.key.read_bytes())
    assert await TlsContexts().get(Tls(client=((pair.cert, pair.key), (both, None))))


@pytest.fixture
def broken(authority, tmp_path):
    """Invalid certificate files, or files with the wrong content."""
    pair = authority.issue("broken")
    (tmp_path / "text.pem").write_text("no certificate")
    (tmp_path / "empty.pem").write_text("")
    encrypt = [tool("openssl"), "rsa", "-aes128", "-passout", "pass:secret-word", "-in", pair.key]
    subprocess.run([*encrypt, "-out", tmp_path / "locked.key"], check=True, capture_output=True)
    return pair


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (Tls(ca=(Path("missing.pem"),)), "missing.pem: No such file"),
        (Tls(ca=(Path("text.pem"),)), "text.pem: "),
        (Tls(ca=(Path("empty.pem"),)), "empty.pem: "),
        (Tls(ca=(Path("."),)), "certificate .*: "),
        (Tls(client=((Path("text.pem"), None),)), "text.pem: "),
        (Tls(client=((Path("cert"), None),)), "cert: "),
        (Tls(client=((Path("cert"), Path("missing.key")),)), "missing.key: No such file"),
        (Tls(client=((Path("cert"), Path("locked.key")),)), "its key is encrypted"),
        (Tls(client=((Path("cert"), Path("other.key")),)), "cert: key values mismatch|KEY_VALUES_MISMATCH"),
    ],
)
async def test_an_invalid_file_is_named_with_the_problem(authority, broken, tmp_path, tls, words):
    shutil.copy(broken.cert, tmp_path / "cert")
    shutil.copy(authority.pair.key, tmp_path / "other.key")
    placed = Tls(
        tuple(tmp_path / file for file in tls.ca),
        tuple((tmp_path / cert, tmp_path / key if key else None) for cert, key in tls.client),
    )
    with pytest.raises(InvalidArgument, match=words) as caught:
        await TlsContexts().get(placed)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
