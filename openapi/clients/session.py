"""A session with the client that openapi-python-client makes of the document: that it type-checks says that the types
are of use, and that it runs that they are true."""

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


def refused(answer: Response[Problem | UserRead], status: HTTPStatus, code: str) -> None:
    assert answer.status_code == status and isinstance(answer.parsed, Problem), answer
    assert answer.parsed.code == code, answer


def main() -> None:
    metadata = UserCreateMetadataType0()
    metadata["languages"] = ["py"]
    made = register.sync(client=Client(URL), body=UserCreate(EMAIL, PASSWORD, full_name="Python", metadata=metadata))
    assert isinstance(made, UserRead), made
    assert made.metadata.to_dict() == {"languages": ["py"]} and made.full_name == "Python"

    taken = register.sync_detailed(client=Client(URL), body=UserCreate(EMAIL, PASSWORD))
    assert taken.status_code == HTTPStatus.CONFLICT and isinstance(taken.parsed, Problem)
    assert taken.parsed.code == "email-taken"

    own = log_in(EMAIL, PASSWORD)
    shown = me.sync(client=own)
    assert isinstance(shown, UserRead) and shown.last_login_at, shown
    nothing = OwnChangeMetadataType0()
    nothing["languages"] = None
    changed = change_me.sync_detailed(client=own, body=OwnChange(full_name=None, metadata=nothing))
    assert isinstance(changed.parsed, UserRead), changed
    assert changed.parsed.full_name is None and changed.parsed.metadata.to_dict() == {}

    administrator = log_in(os.environ["CHECK_EMAIL"], os.environ["CHECK_PASSWORD"])
    page = list_users.sync(client=administrator, email=EMAIL, sort=ListUsersSort("-full_name"), include_total=True)
    assert isinstance(page, Page) and page.total == 1 and [one.id for one in page.items] == [made.id], page
    roles = UserChange(roles=["user", "auditor"])
    stale = change_user.sync_detailed(made.id, client=administrator, body=roles, if_match='W/"1"')
    refused(stale, HTTPStatus.PRECONDITION_FAILED, "stale-revision")
    etag = changed.headers["etag"]
    given = change_user.sync(made.id, client=administrator, body=roles, if_match=etag)
    assert isinstance(given, UserRead) and given.roles == ["auditor", "user"], given
    assert delete_user.sync_detailed(made.id, client=administrator).status_code == HTTPStatus.NO_CONTENT
    refused(user.sync_detailed(made.id, client=administrator), HTTPStatus.NOT_FOUND, "not-found")
    print("Python: the generated client works")


main()
