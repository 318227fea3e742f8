"""Attacks that people with an account try, and that fail."""
