"""What is for sale: advertisers, campaigns, line items, creatives, offers; SQL and compiled snapshots."""
