"""The store: the database of the ledger, on SQLite or PostgreSQL.

Records pass through its modules in this order: ``plans`` (how a stream is read, and its cursor), ``seals`` (what was
read becomes part of the log), ``log`` (the segments of a stream by position), ``deliveries`` (what is delivered next,
under which id), ``acknowledge`` (a delivery ends, the route's position moves), ``retention`` (what nobody needs goes).
``positions`` keeps how far each route is, ``accounts`` the sums, ``dead_letters`` the records that were refused,
``runs`` the runs. Every write goes through ``ledger``, which holds the lease. ``database`` opens the database,
``schema`` has its tables and their migrations.
"""
