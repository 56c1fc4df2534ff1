"""An OpenID provider, by Authlib. Imported only where one is configured: it brings cryptography into memory.

provider.py   the authorization code flow with PKCE
metadata.py   what the provider publishes: endpoints and keys, kept for a while
claims.py     an ID token → who it is
transport.py  requests that are bounded in time and size
"""

from celery_monitor.adapters.oidc.provider import OidcProvider

__all__ = ["OidcProvider"]
