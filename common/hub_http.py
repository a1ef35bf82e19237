"""The HTTP that huggingface_hub speaks: with requests before its version 1, with httpx since, with httpx2 since 2.

What has to be written twice for that is here, so that the rest of the project is written once.
"""

import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session

SILENCE_SECONDS = 60.0
"""How long a server may be silent before a request counts as failed, where its caller sets no limit."""
HTTP_FAULTS = (OSError, HfHubHTTPError.__bases__[0])
"""What a request raises that got no answer, or a part of one: with httpx no `OSError`."""


def quieten_retries() -> None:
    """Drop the three lines that huggingface_hub prints before it tries again; what fails in the end is an exception."""
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)


class Response(Protocol):
    """What the libraries have in common."""

    status_code: int
    headers: Mapping[str, str]


if hasattr(huggingface_hub, "configure_http_backend"):
    import requests
    import urllib3
    from huggingface_hub import configure_http_backend
    from requests.adapters import HTTPAdapter

    class _LimitedAdapter(HTTPAdapter):
        def send(self, request, *args, timeout=None, **kwargs):
            return super().send(request, *args, timeout=timeout or SILENCE_SECONDS, **kwargs)

    def limit_silence() -> None:
        """Give every request of huggingface_hub (and so of datasets) a time limit; most of its own have none."""

        def session() -> requests.Session:
            session = requests.Session()
            for scheme in ("https://", "http://"):
                session.mount(scheme, _LimitedAdapter())
            return session

        if not constants.HF_HUB_OFFLINE:
            configure_http_backend(session)

    @contextmanager
    def stream(url: str, headers: Mapping[str, str]) -> Generator[tuple[Response, Iterator[bytes]]]:
        """The response to a GET request, and its body in pieces as they come.

        Raises:
            HTTP_FAULTS: of the request, and where the body is read.
        """
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().get(url, headers=headers, stream=True, timeout=timeout) as response:
            try:
                yield response, iter(lambda: response.raw.read1(1 << 16), b"")
            except urllib3.exceptions.HTTPError as error:
                raise requests.ConnectionError(error) from error

else:
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def limit_silence() -> None:
        """Give every request of huggingface_hub (and so of datasets) a time limit; most of its own have none."""

        def client():
            client = default_client_factory()
            client.timeout = SILENCE_SECONDS
            return client

        set_client_factory(client)

    @contextmanager
    def stream(url: str, headers: Mapping[str, str]) -> Generator[tuple[Response, Iterator[bytes]]]:
        """The response to a GET request, and its body in pieces as they come.

        Raises:
            HTTP_FAULTS: of the request, and where the body is read.
        """
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
            yield response, response.iter_raw()
