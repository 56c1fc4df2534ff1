"""An OpenID provider, with Authlib. Imported only if one is configured, because it loads cryptography.

provider.py   the authorization code flow with PKCE
metadata.py   the endpoints and keys that the provider publishes, cached
claims.py     verifies an ID token and reads the person from it
transport.py  requests that are bounded in time and size
"""

from celery_monitor.adapters.oidc.provider import OidcProvider

__all__ = ["OidcProvider"]
