"""The protocol with the identity provider: OpenID Connect Core, authorization code flow with PKCE.

Nothing of the provider is cached: sign-ins are rare, and so its present endpoints and keys are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import ClaimError, JoseError
from joserfc.jwk import KeySet, KeySetSerialization
from joserfc.jws import JWSRegistry
from pydantic import BaseModel, ValidationError
from tenacity import wait_none

from headway.domain.access import SKEW
from headway.domain.errors import HeadwayError, ServiceUnavailable
from headway.ledger.sign_ins import SignIn
from headway.service.api.responses import RequestRefused, first_error
from headway.service.door.process import is_loopback
from headway.service.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from headway.system.http_client import Failure, HttpClient, Limits, tls_error
from headway.system.retry_policy import RetryPolicy

__all__ = ["Client"]

DISCOVERY = "/.well-known/openid-configuration"
LIMITS = Limits(timeout=5.0, whole=10.0, bytes=1_000_000)
ONCE = RetryPolicy(attempts=1, backoff=wait_none())  # a person waits, and can try again
# Signatures that only the provider can make: not `none`, and not HS256, whose key is the client secret.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]


class Metadata(BaseModel):
    """What the provider says about itself (OpenID Connect Discovery, 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    scopes_supported: tuple[str, ...] = ()
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class Client:
    """Headway as a client of the provider. Methods raise ServiceUnavailable, and RequestRefused for a sign-in.

    `secret` is empty for a public client. Use it as a context manager.
    """

    def __init__(self, provider: IdentityProvider, secret: str, callback: str) -> None:
        self._provider = provider
        self._secret = secret
        self._callback = callback
        here = is_loopback(urlsplit(provider.issuer).hostname or "")
        self._http = HttpClient(provider.issuer, LIMITS, ONCE, self._failed, trust_env=not here)
        self._http.secrets += [secret] if secret else []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def authorization_url(self, begun: SignIn, state: str) -> str:
        """Where the browser goes to sign in."""
        metadata = self._metadata()
        scopes = ["openid", "profile", "email"]
        if self._provider.groups_claim in metadata.scopes_supported:  # others refuse a scope that they do not know
            scopes.append(self._provider.groups_claim)
        url: str = prepare_grant_uri(
            metadata.authorization_endpoint,
            client_id=self._provider.client_id,
            response_type="code",
            redirect_uri=self._callback,
            scope=" ".join(scopes),
            state=state,
            nonce=begun.nonce,
            code_challenge=create_s256_code_challenge(begun.verifier),
            code_challenge_method="S256",
        )
        return url

    def claims(self, begun: SignIn, code: str) -> dict[str, Any]:
        """The claims about the person who has signed in, from the ID token and the userinfo endpoint."""
        metadata = self._metadata()
        token = self._token(metadata, begun, code)
        claims = self._verified(metadata, token, begun.nonce)
        wanted = {self._provider.name_claim, self._provider.groups_claim}
        if metadata.userinfo_endpoint and not wanted <= claims.keys():
            return self._userinfo(metadata.userinfo_endpoint, str(token.get("access_token")), claims["sub"]) | claims
        return claims

    def _metadata(self) -> Metadata:
        url = self._provider.issuer.rstrip("/") + DISCOVERY
        try:
            metadata = Metadata.model_validate(self._json("GET", url))
        except ValidationError as error:
            raise self._unusable(f"{DISCOVERY}: {first_error(error)}") from None
        if metadata.issuer != self._provider.issuer:
            raise self._unusable(f"it calls itself {self._http.quote(metadata.issuer)}")
        return metadata

    def _token(self, metadata: Metadata, begun: SignIn, code: str) -> dict[str, Any]:
        """The answer to the code: ID token and access token (RFC 6749, 4.1.3)."""
        method = "none"
        if self._secret:
            basic = "client_secret_basic" in metadata.token_endpoint_auth_methods_supported
            method = "client_secret_basic" if basic else "client_secret_post"
        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=self._callback, code_verifier=begun.verifier
        )
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        authentication = ClientAuth(self._provider.client_id, self._secret, method)
        url, headers, body = authentication.prepare("POST", metadata.token_endpoint, headers, body)
        return self._json("POST", url, headers=headers, content=body)

    def _verified(self, metadata: Metadata, token: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """The claims of the ID token (OpenID Connect Core, 3.1.3.7)."""
        keys = cast("KeySetSerialization", self._json("GET", metadata.jwks_uri))
        options = {
            "iss": {"essential": True, "value": metadata.issuer},
            "aud": {"essential": True, "value": self._provider.client_id},
        }
        try:
            found = jwt.decode(
                str(token.get("id_token")),
                KeySet.import_key_set(keys),
                registry=JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False),
            )
            params = {"nonce": nonce, "client_id": self._provider.client_id, "access_token": token.get("access_token")}
            claims = CodeIDToken(found.claims, found.header, options, params)
            claims.validate(leeway=round(SKEW.total_seconds()))
        except (JoseError, ValueError, TypeError) as error:
            raise self._refused(f"its ID token is not valid: {error}", _hint(error)) from None
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise self._refused("its ID token has no subject", "the identity provider is at fault")
        return dict(claims)

    def _userinfo(self, url: str, access_token: str, subject: str) -> dict[str, Any]:
        """More claims. They count only if they are about the same subject (OpenID Connect Core, 5.3.2)."""
        claims = self._json("GET", url, headers={"authorization": f"Bearer {access_token}"})
        if claims.get("sub") != subject:
            raise self._refused("its userinfo is about another person", "sign in again")
        return claims

    def _json(self, method: str, url: str, **content: Any) -> dict[str, Any]:
        answer = self._http.request(method, url, **content)
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._unusable(f"{method} {url} answers {answer.status_code} and no JSON object")
        if answer.status_code != httpx.codes.OK:
            said = ": ".join(str(found[key]) for key in ("error", "error_description") if key in found)
            raise self._not_ok(
                f"{method} {url} answers {answer.status_code} {self._http.quote(said)}", found.get("error")
            )
        return found

    def _not_ok(self, what: str, error: object) -> Exception:
        """For the answer to a wrong or used code; else for a provider that cannot be used as it is."""
        if error == "invalid_grant":
            return self._refused(what, "sign in again")
        hint = f"an admin checks {CLIENT_ID}, and the secret {CLIENT_SECRET}" if error == "invalid_client" else ""
        return self._unusable(what, hint)

    def _failed(self, failure: Failure) -> HeadwayError:
        if failure.response is not None:
            reason = f"{failure.request} answers {failure.response.status_code}"
        else:
            reason = str(tls_error(failure.error) or failure.error) if failure.error else "no answer"
        return self._unusable(self._http.quote(reason))

    def _unusable(self, reason: str, hint: str = "") -> ServiceUnavailable:
        return ServiceUnavailable(
            f"the identity provider {self._provider.issuer} cannot be used: {reason}",
            hint or "try again later; whoever is signed in stays signed in",
        )

    def _refused(self, reason: str, hint: str) -> RequestRefused:
        return RequestRefused(403, f"the identity provider {self._provider.issuer}: {reason}", hint)


def _hint(error: Exception) -> str:
    if isinstance(error, ClaimError) and error.claim in ("exp", "iat", "nbf"):
        minutes = round(SKEW.total_seconds() / 60)
        return f"compare the clocks of both machines: they may differ by {minutes} minutes"
    return "sign in again"
