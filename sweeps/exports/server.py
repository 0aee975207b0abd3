"""Whether a tracker's server is there, asked once and shortly: their clients try for minutes."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from threading import Thread
from urllib.parse import urlsplit

from studies.errors import StudyError

PATIENCE_S = 6.0  # for all of it: an address by name, a connection, the first words


def shown(uri: str) -> str:
    """A URI as it may be printed: without the name and password in it."""
    return re.sub(r"//[^/@]*@", "//***@", uri)


def check_answers(url: str, whose: str, given: str, starts: bytes = b"") -> None:
    """Raises: StudyError, in one line, where nobody answers at a URL, or something else than the server of ``whose``:
    what it says must begin with ``starts``. ``given`` is what the user called it."""
    if not urlsplit(url).hostname:
        raise StudyError(f"{given}: no address of a server")
    if why := _in_time(lambda: _why_not(url, starts)):
        raise StudyError(f"{given}: the server of {whose} {why}; does it run, and is the address right?")


def check_database(uri: str, given: str) -> None:
    """Raises: StudyError, in one line, where a database (SQLAlchemy's URI) cannot be connected to."""
    if why := _in_time(lambda: _no_connection(uri)):
        raise StudyError(f"{given}: the database {why}; does it run, and is the address right?")


def _in_time(ask: Callable[[], str | None]) -> str | None:
    """What is answered, or that nothing is."""
    found: list[str | None] = []
    asking = Thread(target=lambda: found.append(ask()), daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return found[0] if found else f"does not answer within {PATIENCE_S:g} s"


def _no_connection(uri: str) -> str | None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        create_engine(uri).connect().close()
    except (SQLAlchemyError, ImportError) as error:  # its driver may be missing
        return f"cannot be used: {str(getattr(error, 'orig', None) or error).strip().splitlines()[0][:200]}"
    return None


def _why_not(url: str, starts: bytes) -> str | None:
    """Why this is not the server that was meant; None where it is, as far as can be told."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return None if answer.read(64).lstrip().startswith(starts) else "answers, but not as one"
    except urllib.error.HTTPError as error:  # 401, say, is for its client, which has the credentials
        return f"answers with HTTP {error.code}" if error.code >= 500 or error.code == 404 else None
    except urllib.error.URLError as error:
        known_to_client = isinstance(error.reason, ssl.SSLCertVerificationError)
        return None if known_to_client else f"does not answer: {error.reason}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"answers, but not as one ({type(error).__name__}: {str(error)[:60]!r})"
