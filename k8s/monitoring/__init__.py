"""Alerts, dashboards and what scrapes for them."""
