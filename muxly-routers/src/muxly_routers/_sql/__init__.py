"""The router ``sql`` inside: one kind of database a module, all else written once."""
