"""`status` a page at a time: what looks at many sessions must not hold the loop for long."""

import pytest

from runtime.errors import ProtocolError


@pytest.fixture
def opened(client):
    """Five sessions, opened in no order."""
    for session in (5, 900, 12, 7, 31):
        client.open("counter", session=session)
    return client


def page(client, **fields):
    """The ids that a status tells of, and how many are left."""
    facts = client.request("status", **fields)
    return [row["session"] for row in facts["sessions"]], facts["sessions_left"]


def test_pages_tell_of_every_session_once_in_the_order_of_ids(opened):
    assert page(opened, count=2) == ([5, 7], 3)
    assert page(opened, after=7, count=2) == ([12, 31], 1)
    assert page(opened, after=31, count=2) == ([900], 0)
    assert page(opened) == ([5, 7, 12, 31, 900], 0)
    assert page(opened, session=12) == ([12], 0)


def test_a_page_may_begin_after_a_session_that_is_gone(opened):
    opened.request("close", session=7)
    assert page(opened, after=7, count=1) == ([12], 2)


def test_a_page_of_nothing_is_refused(opened):
    with pytest.raises(ProtocolError, match="count"):
        opened.request("status", count=0)
