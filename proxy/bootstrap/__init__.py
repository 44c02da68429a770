"""The composition root: the only place that knows which adapter stands behind which port.

`storage` composes the database alone, for commands that need no more; `gateway` composes everything, and imports
Semantic Kernel, which takes seconds.
"""

from proxy.bootstrap.openai_package import defer_openai
from proxy.bootstrap.templates import defer_templates

defer_openai()
defer_templates()
