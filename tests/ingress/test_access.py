"""Who may call as an exchange: token, certificate name, network; each alone and together."""

from types import SimpleNamespace

import pytest

from dsp.ingress.access import Access


@pytest.mark.parametrize(
    ("access", "headers", "client", "refusal"),
    [
        (Access("", "", (), ""), {}, "1.2.3.4:5", ""),
        (Access("t", "", (), ""), {"authorization": "Bearer t"}, "", ""),
        (Access("t", "", (), ""), {"authorization": "Bearer u"}, "", "Bearer"),
        (Access("", "X-Client: CN=a", (), ""), {"x-client": "CN=a"}, "", ""),
        (Access("", "X-Client: CN=a", (), ""), {"x-client": "CN=ab"}, "", "certificate"),
        (Access("", "X-Client: CN=a", (), ""), {}, "", "certificate"),
        (Access("", "", ("10.0.0.0/8", "2001:db8::/32"), ""), {}, "10.9.8.7:4411", ""),
        (Access("", "", ("10.0.0.0/8", "2001:db8::/32"), ""), {}, "[2001:db8::7]:4411", ""),
        (Access("", "", ("10.0.0.0/8",), ""), {}, "[::ffff:10.1.1.1]:4411", ""),
        (Access("", "", ("10.0.0.0/8",), ""), {}, "11.9.8.7:4411", "address"),
        (Access("", "", ("10.0.0.0/8",), ""), {}, "nonsense", "address"),
        # behind a proxy only what the nearest one wrote counts
        (Access("", "", ("10.0.0.0/8",), "x-forwarded-for"), {"x-forwarded-for": "9.9.9.9, 10.1.1.1"}, "1.1.1.1:1", ""),
        (
            Access("", "", ("10.0.0.0/8",), "x-forwarded-for"),
            {"x-forwarded-for": "10.1.1.1, 9.9.9.9"},
            "1.1.1.1:1",
            "a",
        ),
        (Access("", "", ("10.0.0.0/8",), "x-forwarded-for"), {}, "10.1.1.1:1", "address"),
        (Access("t", "x-c: a", ("10.0.0.0/8",), ""), {"authorization": "Bearer t", "x-c": "a"}, "10.1.1.1:1", ""),
        (Access("t", "x-c: a", ("10.0.0.0/8",), ""), {"authorization": "Bearer t", "x-c": "a"}, "9.1.1.1:1", "address"),
    ],
)
def test_all_that_is_asked_for_must_be_shown(
    access: Access, headers: dict[str, str], client: str, refusal: str
) -> None:
    for _ in range(2):  # also when the caller is known
        said = access.refusal(headers, SimpleNamespace(client=client))
        assert (refusal in said) if refusal else said == ""


def test_who_was_let_in_from_one_address_is_not_from_another() -> None:
    access = Access("t", "", ("10.0.0.0/8",), "")
    assert access.refusal({"authorization": "Bearer t"}, SimpleNamespace(client="10.1.1.1:1")) == ""
    assert access.refusal({"authorization": "Bearer t"}, SimpleNamespace(client="12.1.1.1:1"))
    assert access.refusal({"authorization": "Bearer u"}, SimpleNamespace(client="10.1.1.1:1"))
