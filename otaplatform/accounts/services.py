"""What can be done to people, roles and accounts, and what they do at the door. Each verb is audited.

Console, admin, API and commands call these verbs; none of them changes a person by itself.
"""

from collections.abc import Iterable, Sequence

from django.contrib import auth
from django.contrib.auth.models import Group
from django.db import transaction
from django.http import HttpRequest

from otaplatform.accounts import audit, tokens
from otaplatform.accounts.login_limits import Refusal
from otaplatform.accounts.models import Account, LoginCounter, User
from otaplatform.core.throttling import client_address

# ---- at the door -------------------------------------------------------------------------------------


def log_in(request: HttpRequest, user: User) -> None:
    """Begin a session of the user. Its key is a new one."""
    auth.login(request, user, "django.contrib.auth.backends.ModelBackend")
    audit.record(user.account_id, user, "user.logged_in", user, address=client_address(request))


def log_out(request: HttpRequest) -> None:
    """End the session."""
    user = request.user
    auth.logout(request)
    if isinstance(user, User):
        audit.record(user.account_id, user, "user.logged_out", user)


def record_failed_login(user: User | None, address: str, *, step: str = "password") -> None:
    """A log-in failed. The name that was typed is kept only if somebody has it: it may be a password."""
    account = user.account_id if user else None
    audit.record(account, None, "user.login_failed", user, address=address, step=step)


def record_blocked_login(user: User | None, address: str, refusal: Refusal) -> None:
    """From now on log-ins are not looked at for a while; said once, not for each attempt."""
    if refusal.is_first:
        seconds = round(refusal.wait.total_seconds())
        account = user.account_id if user else None
        audit.record(account, None, "user.login_blocked", user, address=address, seconds=seconds)


def unblock_login(counter: LoginCounter, actor: User) -> None:
    """Forget the failed log-ins of a counter, so that the next ones are looked at."""
    account = counter.user.account_id if counter.user else None
    with transaction.atomic():
        audit.record(account, actor, "user.login_unblocked", counter.user, address=counter.address)
        counter.delete()


# ---- people ------------------------------------------------------------------------------------------


def create_user(user: User, *, actor: User | None) -> User:
    """Store a new person, who changes the password at the first login."""
    user.must_change_password = True
    with transaction.atomic():
        user.save(force_insert=True)
        audit.record(user.account_id, actor, "user.created", user)
    return user


def change_user(user: User, changed: Sequence[str], *, actor: User) -> User:
    """Store what was changed of a person (names of fields). Who is deactivated, or moved to another account,
    loses every token; sessions end with their next request."""
    with transaction.atomic():
        before = User.objects.select_for_update(no_key=True).get(pk=user.pk)
        user.save()
        fields = sorted(set(changed) - {"groups", "is_active", "password"})
        if fields:
            audit.record(user.account_id, actor, "user.changed", user, fields=fields)
        if before.is_active != user.is_active:
            action = "user.activated" if user.is_active else "user.deactivated"
            audit.record(user.account_id, actor, action, user)
        if before.account_id != user.account_id and before.account_id:
            audit.record(before.account_id, actor, "user.moved_away", user)
        if (before.is_active and not user.is_active) or before.account_id != user.account_id:
            tokens.revoke_all(user, actor)
    return user


def set_roles(user: User, roles: Iterable[Group], *, actor: User) -> None:
    """Give a person exactly these roles."""
    with transaction.atomic():
        before = sorted(user.groups.values_list("name", flat=True))
        wanted = list(roles)
        user.groups.set(wanted)
        after = sorted(role.name for role in wanted)
        if before != after:
            audit.record(user.account_id, actor, "user.roles_changed", user, before=before, after=after)


def store_password(user: User, *, actor: User | None) -> None:
    """Store the password that was set on `user`. One that somebody else has set is changed at the next login,
    and ends every token; Django ends the other sessions of the user in both cases."""
    is_own = actor is not None and actor.pk == user.pk
    with transaction.atomic():
        user.must_change_password = not is_own
        user.save(update_fields=["password", "must_change_password"])
        if is_own:
            audit.record(user.account_id, actor, "user.password_changed", user)
        else:
            record_password_reset(user, actor=actor)


def record_password_reset(user: User, *, actor: User | None) -> None:
    """Somebody else (None: with the command line) has set the password: every token ends."""
    with transaction.atomic():
        audit.record(user.account_id, actor, "user.password_reset", user)
        tokens.revoke_all(user, actor)


def delete_user(user: User, *, actor: User) -> None:
    """Delete a person; what the person did stays in the audit log under the name."""
    with transaction.atomic():
        audit.record(user.account_id, actor, "user.deleted", user)
        user.delete()


# ---- roles and accounts ------------------------------------------------------------------------------


def record_role(group: Group, actor: User, action: str, permissions: Iterable[str] = ()) -> None:
    """A role was created, changed or deleted (`action`); `permissions` are those that it has now."""
    audit.record(None, actor, action, group, permissions=sorted(permissions))


def save_account(account: Account, changed: Sequence[str], *, actor: User) -> Account:
    """Store a new account, or what was changed of one (names of fields)."""
    is_new = account.pk is None
    with transaction.atomic():
        account.save()
        if is_new:
            audit.record(account, actor, "account.created", account)
        elif changed:
            audit.record(account, actor, "account.changed", account, fields=sorted(changed))
    return account


def delete_account(account: Account, *, actor: User) -> None:
    """Delete an account that nothing belongs to."""
    with transaction.atomic():
        audit.record(None, actor, "account.deleted", account)
        account.delete()
