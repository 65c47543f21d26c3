"""Messages for Slack: what they say (values and functions), and how they get there (one client, one outbox)."""
