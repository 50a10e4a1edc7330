"""Shared packages of the platform."""
