"""A token server (distribution project's specification) whose tokens docker-registry accepts."""

from __future__ import annotations

import base64
import json
import ssl
import time
from typing import Any

from aiohttp import web

from registries.pki import Pair, sign

USER, PASSWORD, IDENTITY = "puller", "p:ull-secret", "identity-secret"


class TokenServer:
    """Has one user, who can pull everything; others can pull public content."""

    def __init__(self, signer: Pair, *, seconds: int = 300, private: bool = True) -> None:
        self._signer = signer
        self._seconds = seconds
        self._private = private
        self._runner: web.AppRunner | None = None
        self.authority = ""
        self.requests: list[tuple[str, dict[str, str], str]] = []
        """Method, parameters and Authorization of every request."""

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_route("*", "/token", self._token)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.authority = f"{host}:{port}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _token(self, request: web.Request) -> web.Response:
        asked = dict(request.query) | {key: str(value) for key, value in (await request.post()).items()}
        authorization = request.headers.get("Authorization", "")
        self.requests.append((request.method, asked, authorization))
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = authorization == basic or asked.get("refresh_token") == IDENTITY
        if self._private and not known:
            return web.json_response({"details": "incorrect user name or password"}, status=401)
        scope = asked.get("scope", "").split(":")
        access = []
        if len(scope) == 3:
            access = [{"type": scope[0], "name": scope[1], "actions": scope[2].split(",")}]
        token = self.signed(asked.get("service", ""), access)
        return web.json_response({"token": token, "expires_in": self._seconds})

    def signed(self, service: str, access: list[dict[str, Any]]) -> str:
        """Return a signed token for ``access``."""
        der = ssl.PEM_cert_to_DER_cert(self._signer.cert.read_text())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            **{"iss": "test-issuer", "sub": USER, "aud": service, "jti": str(now), "access": access},
            **{"iat": now, "nbf": now - 60, "exp": now + self._seconds},
        }
        head = f"{_part(json.dumps(header).encode())}.{_part(json.dumps(claims).encode())}"
        return f"{head}.{_part(sign(self._signer.key, head.encode()))}"


def _part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
