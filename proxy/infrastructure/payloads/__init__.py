"""Storing bodies of requests and answers for those who ask for it; apart from the ledger in every way.

store.py      a bounded queue that requests put references into, and the task that empties it
preparing.py  redacting, cutting and compressing, in a thread
redaction.py  finding the operator's redaction hook
rows.py       the table: writing, deleting, finding
retention.py  deleting what has been kept long enough
"""
