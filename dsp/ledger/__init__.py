"""Money: accounts, grants, notices."""
