"""The database goes away under a running ledger: nothing that was acknowledged is lost, and it recovers by itself."""

import pytest
from ledger_role import Role, publish


@pytest.fixture
def role(postgres, tmp_path):
    role = Role(tmp_path, database=postgres.create())
    publish(role.config)
    role.start()
    yield role
    role.close()


def send(role: Role, n: int) -> None:
    """``n`` charges of 5,000 micros, each acknowledged."""
    for _ in range(n):
        assert role.client.get(f"/b/{role.token()}?p=5").status_code == 204


def test_a_killed_database_costs_nothing_that_was_acknowledged(role, postgres):
    send(role, 10)
    postgres.kill()
    send(role, 30)  # spooled
    assert role.client.get("/readyz").status_code == 503
    assert role.client.get("/totals").status_code == 503
    postgres.start()
    role.wait_for(lambda: role.client.get("/readyz").status_code == 200)
    send(role, 5)
    assert role.spend() == 45 * 5000
    assert role.metric("spooled_total") >= 29


def test_a_ledger_that_dies_with_a_full_spool_books_it_when_it_starts(role, postgres):
    postgres.kill()
    send(role, 20)
    role.stop(9)
    role.start(ready=False)  # the database is still away
    send(role, 3)
    postgres.start()
    role.wait_for(lambda: role.client.get("/readyz").status_code == 200)
    assert role.spend() == 23 * 5000


def test_a_database_that_hangs_is_given_up_and_taken_back(role, postgres):
    send(role, 3)
    postgres.freeze(True)
    try:
        send(role, 3)  # the first waits for the watchdog, then all are spooled
        assert role.client.get("/readyz").status_code == 503
    finally:
        postgres.freeze(False)
    role.wait_for(lambda: role.client.get("/readyz").status_code == 200)
    assert role.spend() == 6 * 5000
