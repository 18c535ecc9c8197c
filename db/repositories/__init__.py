"""One module per aggregate; every function takes a Connection first and runs inside the caller's transaction.

What they return are frozen values, never live rows. `now` (UTC seconds) is for an injected clock; without it leases use
the database's clock on PostgreSQL and the system's on SQLite. Hashes go in and out in hexadecimal.
Rows are locked in one order, job before step, so that two transactions never wait for each other.
"""
