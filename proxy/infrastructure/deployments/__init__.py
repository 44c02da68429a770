"""The deployments that the gateway calls, each isolated from the others.

live.py      one deployment: its service, breaker, places, traffic
places.py    how many calls it may have at a time
traffic.py   what its answers tell of it
fleet.py     all of them, as a configuration names them; those that stay the same survive a reload
"""
