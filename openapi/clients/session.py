"""A session with the client that openapi-python-client generates from the document: type-checking it shows that the
types are usable, and running it that they are correct."""

import os
from http import HTTPStatus

from roster_client import AuthenticatedClient, Client
from roster_client.api.auth import change_me, login, me, register
from roster_client.api.users import change_user, delete_user, list_users, user
from roster_client.models import Credentials, ListUsersSort, OwnChange, Page, Problem, Token, UserChange, UserCreate, UserRead
from roster_client.models.own_change_metadata_type_0 import OwnChangeMetadataType0
from roster_client.models.user_create_metadata_type_0 import UserCreateMetadataType0
from roster_client.types import Response

URL = os.environ["CHECK_URL"]
EMAIL = "python@example.com"
PASSWORD = "a password of a generated client"


def log_in(email: str, password: str) -> AuthenticatedClient:
    token = login.sync(client=Client(URL), body=Credentials(email, password))
    assert isinstance(token, Token), token
    return AuthenticatedClient(URL, token=token.access_token)


def assert_problem(answer: Response[Problem | UserRead], status: HTTPStatus, code: str) -> None:
    assert answer.status_code == status and isinstance(answer.parsed, Problem), answer
    assert answer.parsed.code == code, answer


def main() -> None:
    metadata = UserCreateMetadataType0()
    metadata["languages"] = ["py"]
    created = register.sync(client=Client(URL), body=UserCreate(EMAIL, PASSWORD, full_name="Python", metadata=metadata))
    assert isinstance(created, UserRead), created
    assert created.metadata.to_dict() == {"languages": ["py"]} and created.full_name == "Python"

    taken = register.sync_detailed(client=Client(URL), body=UserCreate(EMAIL, PASSWORD))
    assert taken.status_code == HTTPStatus.CONFLICT and isinstance(taken.parsed, Problem)
    assert taken.parsed.code == "email-taken"

    own = log_in(EMAIL, PASSWORD)
    shown = me.sync(client=own)
    assert isinstance(shown, UserRead) and shown.last_login_at, shown
    removal = OwnChangeMetadataType0()
    removal["languages"] = None
    changed = change_me.sync_detailed(client=own, body=OwnChange(full_name=None, metadata=removal))
    assert isinstance(changed.parsed, UserRead), changed
    assert changed.parsed.full_name is None and changed.parsed.metadata.to_dict() == {}

    administrator = log_in(os.environ["CHECK_EMAIL"], os.environ["CHECK_PASSWORD"])
    page = list_users.sync(client=administrator, email=EMAIL, sort=ListUsersSort("-full_name"), include_total=True)
    assert isinstance(page, Page) and page.total == 1 and [one.id for one in page.items] == [created.id], page
    roles = UserChange(roles=["user", "auditor"])
    stale = change_user.sync_detailed(created.id, client=administrator, body=roles, if_match='W/"1"')
    assert_problem(stale, HTTPStatus.PRECONDITION_FAILED, "stale-revision")
    etag = changed.headers["etag"]
    given = change_user.sync(created.id, client=administrator, body=roles, if_match=etag)
    assert isinstance(given, UserRead) and given.roles == ["auditor", "user"], given
    assert delete_user.sync_detailed(created.id, client=administrator).status_code == HTTPStatus.NO_CONTENT
    assert_problem(user.sync_detailed(created.id, client=administrator), HTTPStatus.NOT_FOUND, "not-found")
    print("Python: the generated client works")


main()
