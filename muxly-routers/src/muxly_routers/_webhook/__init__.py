"""The parts of the router ``webhook``: encoding, cutting into requests, signing, sending, reading answers."""
