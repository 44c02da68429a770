"""The admin API: an application of its own below /admin, on the gateway's port or on another one."""
