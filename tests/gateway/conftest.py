"""No keys and no proxies of the machine reach a test of the gateway."""

from tests.models.conftest import clean_environment

__all__ = ["clean_environment"]
