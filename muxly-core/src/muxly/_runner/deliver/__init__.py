"""Delivery: one worker for each route, which hands sealed segments to its router."""
