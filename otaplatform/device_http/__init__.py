"""Devices that speak HTTPS: login and reports by POST, updates in the answers."""
