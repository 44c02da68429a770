"""Rate limits: counted in this process, or in a Valkey that several share.

`windows` counts what is used within a minute, `local` what is used at once; `room` is where requests wait for a place;
`shared` counts both in Valkey; `shares` tells how much of a limit is this process's when there is none. `limiter` puts
them together.
"""
