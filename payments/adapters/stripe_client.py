"""One Stripe account through the `stripe` library: what the parts of `StripeProvider` have in common."""

from __future__ import annotations

from typing import ClassVar

import stripe

from payments.adapters.stripe_transport import Httpx2Client

_TIMEOUT_SECONDS = 15.0
PAGE = 100


class StripeAccount:
    """The library's client over our transport."""

    name: ClassVar[str] = "stripe"

    def __init__(
        self,
        api_key: str,
        api_base: str,
        *,
        return_url: str | None = None,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._transport = Httpx2Client(timeout_seconds)
        # Where a payer ends up after 3-D Secure; without it nobody can be sent there.
        self._return_url = return_url
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": api_base.rstrip("/")},
            http_client=self._transport,
            # The caller repeats with the same key and looks up first; two layers of retries would only hide that.
            max_network_retries=0,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close_async()
