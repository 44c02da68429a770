"""What happens around every handler, outermost first; the order and its reasons stand here and nowhere else."""

from proxy.api.middlewares.access_log import access_log
from proxy.api.middlewares.authentication import authentication
from proxy.api.middlewares.errors import errors
from proxy.api.middlewares.request_id import request_id

MIDDLEWARES = (
    request_id,  # first: everything after it, errors and logs included, names the request
    access_log,  # sees the final status, also of errors
    errors,  # turns what is raised below into OpenAI's error object
    authentication,  # raises for the layer above; nothing below runs for those who may not have it run
)

__all__ = ["MIDDLEWARES"]
