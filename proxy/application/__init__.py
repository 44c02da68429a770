"""Use cases: what happens to a request, in which order. Depends on the domain and on Semantic Kernel's abstractions."""
