"""HTTP as routers speak it: checked addresses, deadlines, capped answers, and what a status means."""
