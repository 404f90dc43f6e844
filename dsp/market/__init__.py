"""A seeded synthetic world that trades with the bidder."""
