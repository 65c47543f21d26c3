"""The parts of the router ``prometheus``: reading columns, keeping series, rendering them, four ways out."""
