"""A small catalog file for tests, and ways to spoil it."""

from __future__ import annotations

GOOD = """\
currencies: {date: 2026-01-05, rates: {USD: 1, EUR: 1.08}}
exchanges:
  - {name: alpha, id: 1, token: t, currency: USD}
  - {name: beta, id: 2, currency: EUR, auction: second}
segments:
  rich: 7
  women: {number: 8, demographic: gender}
offers:
  - name: loan
    product: loan
    lender: Bank
    margin: 20.5
    lgd: 0.4
    ead: 500
  - name: savings
    product: deposit
    lender: Bank
    margin: 3
deals:
  - {id: deal-1, exchange: alpha, floor: 2.5}
advertisers:
  - name: Bank
    seat: seat-1
    domain: [www.Bank.example]
    category: [IAB13-2]
    currency: USD
    timezone: America/New_York
    campaigns:
      - name: Spring
        budget: {total: 1000.10, daily: 100}
        flight: {start: 2026-03-01, end: 2026-03-31}
        line_items:
          - name: Loans
            offer: loan
            max_bid_cpm: 4.255
            budget: {total: 500}
            special_category: credit
            targeting:
              geo: {include: [USA/CA]}
              segments: {include: [rich]}
              daypart: {mon-fri: 8-22}
            creatives:
              - name: Box
                format: banner
                sizes: [300x250, 320x50]
                landing: https://bank.example/loans
                headline: Loans
                image: https://cdn.bank.example/{size}.png
          - name: Savings
            offer: savings
            max_bid_cpm: 2
            deals: [deal-1]
            flight: {start: 2026-03-10T08:00}
            creatives:
              - name: Clip
                format: video
                landing: https://bank.example/savings
                media: https://cdn.bank.example/a.mp4
                duration_s: 15
"""


def edited(*replacements: tuple[str, str]) -> str:
    """GOOD with texts replaced; each must be there."""
    text = GOOD
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def line_of(text: str, part: str) -> int:
    """The line number of the first line that contains ``part``."""
    return next(i for i, line in enumerate(text.splitlines(), 1) if part in line)
