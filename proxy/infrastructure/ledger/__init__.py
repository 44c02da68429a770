"""Booking requests so that neither a crash nor an absent database loses one.

framing.py   records in a byte string: length, checksum, and finding one's way past damage
segment.py   a file of fixed size, allocated ahead, that records are appended to
records.py   what is recorded: an intent before the upstream is called, an outcome when the request is settled
spool.py     a process's segments: appending, reserving room, reading on
drain.py     from the spool into the database, and what to do with rows that it refuses
adoption.py  the spools that dead processes have left
ledger.py    the Ledger port over all of these
"""
